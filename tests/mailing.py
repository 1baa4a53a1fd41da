"""Mails that a stack has taken."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from devstack.mails import Mail

from conftest import People, Platform
from devstack import mails


def to(platform: Platform, email: str) -> list[Mail]:
    """Those to an address, in the order in which they were first received."""
    found = [mail for mail in mails.newest(platform.layout.mails, mails.MOST_KEPT) if mail.recipient == email]
    return sorted(found, key=lambda mail: mail.received[-1])


async def arrived(
    platform: Platform, email: str, is_enough: Callable[[list[Mail]], bool], seconds: float = 60
) -> list[Mail]:
    """The same, once they are enough."""
    async with asyncio.timeout(seconds):
        while not is_enough(found := await asyncio.to_thread(to, platform, email)):
            await asyncio.sleep(0.1)
    return found


async def newcomer(people: People, domain: str = "example.com", name: str = "New Comer") -> tuple[BackendClient, str]:
    """A customer nobody else knows, logged in, and their address."""
    login = models.LoginRequest(email=f"{uuid.uuid4()}@{domain}", password=f"pw-{uuid.uuid4()}")
    await BackendClient(people.http).register(
        models.RegisterRequest(email=login.email, password=login.password, display_name=name)
    )
    return await people.log_in(login), login.email
