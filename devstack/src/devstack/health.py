"""How each process of a stack is now, asked of itself, for `backend status`: over sockets alone, so that it is quick.

PostgreSQL and Valkey are asked without a password: a refusal is an answer, too. The broker is asked as its clients do, by
who has its own certificate: its HTTP tell everything to everybody. The supervisor's probes go the same way: an HTTP client,
or NATS's, costs more time to import than a service takes to answer.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from chassis.certificate_files import client_context
from mesh.broker import HEALTH, HEALTH_ANSWER
from mesh.topology import BROKER, CONSOLE, MAILBOX

from devstack.layout import Layout
from devstack.secrets import load_or_create

READY, NOT_READY, UNHEALTHY = "ready", "not ready", "unhealthy"
_SECONDS = 3.0
_OK = b"HTTP/1.1 200"
# More than a probe's answer has, which is sent in one piece.
_ANSWER_BYTES = 16384
# PostgreSQL's frontend/backend protocol 3.0: the length, the version, the user's name.
_STARTUP = b"\0\0\0\x17\0\3\0\0user\0postgres\0\0"
# NATS's client protocol (docs.nats.io): what its /healthz would say.
_HEALTHZ = (
    'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"1","name":"health"}\r\n'
    f"SUB {HEALTH_ANSWER} 1\r\nPUB {HEALTH} {HEALTH_ANSWER} 0\r\n\r\n"
).encode()


class Health:
    """The processes of one stack.

    Args:
        layout: where it is.
        endpoints: the ops address of each service process (`order_ops`).
    """

    def __init__(self, layout: Layout, endpoints: Mapping[str, str]) -> None:
        self._layout = layout
        self._endpoints = endpoints

    async def now(self, name: str) -> tuple[str, dict[str, str]]:
        """How a process is, and what its probes found that fails or works less well, by check.

        READY; NOT_READY, it answers and lacks something (its database, say); or UNHEALTHY, it does not answer.
        """
        if f"{name}_ops" not in self._endpoints:
            return await self._server(name), {}
        (ready, lacking), (alive, hanging) = await asyncio.gather(self._probe(name, "ready"), self._probe(name, "live"))
        if ready:
            return READY, lacking
        return (NOT_READY, lacking) if alive else (UNHEALTHY, hanging)

    async def _server(self, name: str) -> str:
        if name == "postgres":
            answer = await _exchange(str(self._layout.sockets / "postgres" / ".s.PGSQL.5432"), _STARTUP)
            # Authentication is asked for; anything else is an error, such as that it is starting.
            return READY if answer.startswith(b"R") else NOT_READY if answer else UNHEALTHY
        if name.startswith("valkey"):
            answer = await _exchange(str(self._layout.sockets / f"{name}.sock"), b"PING\r\n")
            return READY if answer.startswith((b"+PONG", b"-NOAUTH")) else NOT_READY if answer else UNHEALTHY
        if name == BROKER:
            return READY if await broker_works(self._layout) else UNHEALTHY
        if name == MAILBOX:
            return READY if await mailbox_greets(self._layout) else UNHEALTHY
        return READY if await answers_ok(f"{self._endpoints[CONSOLE]}/healthz/ready") else UNHEALTHY

    async def _probe(self, name: str, what: str) -> tuple[bool, dict[str, str]]:
        # A service waits for what it needs before it says that it is not ready: each question has a time of its own.
        answer = await _get(f"{self._endpoints[f'{name}_ops']}/healthz/{what}")
        return answer.startswith(_OK), _told(answer)


async def answers_ok(url: str) -> bool:
    """Whether GET answers 200, over plain HTTP."""
    return (await _get(url)).startswith(_OK)


async def _get(url: str) -> bytes:
    address = urlsplit(url)
    request = f"GET {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\nconnection: close\r\n\r\n"
    return await _exchange((str(address.hostname), address.port or 80), request.encode())


def _told(answer: bytes) -> dict[str, str]:
    """What a probe says in words, by check; nothing when it says nothing, as the edge's."""
    try:
        said = json.loads(answer.partition(b"\r\n\r\n")[2])
    except ValueError:
        return {}
    return {check: found for check, found in said.items() if isinstance(found, str)}


async def valkey_answers(layout: Layout, server: str) -> bool:
    """Whether a Valkey server has loaded its data and answers the administrator, or refuses a password in its change.

    One whose disk is full refuses PING (`MISCONF`) and goes on reading: to kill it would lose what it has not written.
    """
    hello = f"AUTH admin {load_or_create(layout.secrets).valkey_of('admin')}\r\nPING\r\n"
    answer = await _exchange(str(layout.sockets / f"{server}.sock"), hello.encode())
    return answer.startswith((b"+OK\r\n+PONG", b"+OK\r\n-MISCONF", b"-WRONGPASS"))


async def broker_works(layout: Layout) -> bool:
    """Whether the broker has its streams, and takes what is published."""
    try:
        async with asyncio.timeout(_SECONDS):
            context = await asyncio.to_thread(_brokers_own, layout)
            reader, writer = await asyncio.open_connection("127.0.0.1", layout.port(BROKER), ssl=context)
            try:
                writer.write(_HEALTHZ)
                while line := await reader.readline():
                    if line.startswith((b"MSG ", b"-ERR ")):
                        return b'"status_code":200' in await reader.readline()
                return False
            finally:
                writer.close()
    # ValueError: a line without end. No NATS writes one.
    except (OSError, TimeoutError, ValueError):
        return False


def _brokers_own(layout: Layout) -> ssl.SSLContext:
    """With the certificate of the broker as it is now.

    Raises:
        OSError: there is none yet.
    """
    directory = layout.certificates / BROKER
    context = client_context(directory)
    # A workload certificate names a SPIFFE URI; who has one of ours at this port is who we have started there.
    context.check_hostname = False
    return context


async def mailbox_greets(layout: Layout) -> bool:
    """Whether the mailbox takes mail."""
    return (await _exchange(("127.0.0.1", layout.port(MAILBOX)), b"QUIT\r\n")).startswith(b"220")


async def _exchange(where: str | tuple[str, int], message: bytes) -> bytes:
    """What is answered to a message on a connection of its own, its beginning at least; empty when nothing is, in time."""
    opening = asyncio.open_unix_connection(where) if isinstance(where, str) else asyncio.open_connection(*where)
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await opening
            try:
                writer.write(message)
                return await reader.read(_ANSWER_BYTES)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""
