"""Limits and outages, on a stack of their own: it has the limits of production, and is harmed."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from inside import paused, until_ready
from pytest_bdd import given, parsers, scenarios, then, when
from stories import Story

from conftest import Platform, backend, http_client, start_platform

scenarios("limits.feature", "outages.feature")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    data_dir = tmp_path_factory.mktemp("pressed")
    yield start_platform(data_dir)
    backend("reset", "--yes", "--data-dir", str(data_dir))


@pytest.fixture
def hanging() -> Iterator[ExitStack]:
    """Ends what a scenario stops, also one that fails."""
    with ExitStack() as stopped:
        yield stopped


@when(parsers.parse("an address tries {times:d} logins"), target_fixture="address")
def tries_logins(story: Story, times: int) -> BackendClient:
    # A client has an address of its own.
    client = BackendClient(http_client(story.people.platform.url))
    for _ in range(times):
        tries_another(story, client)
        assert story.told("the address") == "The password or the email address is wrong"
    return client


@when("it tries another")
def tries_another(story: Story, address: BackendClient) -> None:
    # Each for another account: nothing but the address is the same.
    login = models.LoginRequest(email=f"{uuid.uuid4()}@example.com", password="wrong")
    story.tries("the address", address.login(login))


@then(parsers.parse('the address is told "{words}"'))
def the_address_is_told(story: Story, address: BackendClient, words: str) -> None:
    assert story.told("the address") == words
    story.run(address.http.aclose())


@then(parsers.parse("{who:w} can go on"))
def can_go_on(story: Story, who: str) -> None:
    story.clients[who] = story.run(story.people.log_in(story.logins[who]))
    story.run(story.clients[who].get_me())


@given(parsers.parse("{times:d} cards of {who:w} were declined"))
def were_declined(story: Story, times: int, who: str) -> None:
    for _ in range(times):
        story.pay(who, "a card that is declined")
        assert story.told(who) == "The payment was declined"


@when("the order service hangs")
def hangs(story: Story, hanging: ExitStack) -> None:
    hanging.enter_context(paused(story.people.platform.pid("order")))


@when("the order service goes on")
def goes_on(story: Story, hanging: ExitStack) -> None:
    hanging.close()
    story.run(until_ready(story.people.platform))


@when("the order service dies", target_fixture="killed")
def dies(story: Story) -> int:
    pid = story.people.platform.pid("order")
    os.kill(pid, signal.SIGKILL)
    return pid


@when("it is back")
def is_back(story: Story, killed: int) -> None:
    story.run(until_ready(story.people.platform))
    assert story.people.platform.pid("order") != killed


@then(parsers.parse("{who:w} sees her profile, and that orders are missing"))
def sees_the_profile(story: Story, who: str) -> None:
    overview = story.run(story.clients[who].get_my_overview()).data
    assert (overview.profile.email, overview.missing) == (story.logins[who].email, ["orders", "spent"])
