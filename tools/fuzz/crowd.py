"""Well-formed requests about anything: methods, hosts, paths and headers that nobody has used before, on kept connections.

They are many at little cost (`tools/soak.py anything`), and show what grows with the number of different requests.
"""

from __future__ import annotations

import asyncio
import string
from collections import Counter
from collections.abc import Callable
from random import Random

from fuzz.mutations import METHODS, PATHS

_TOKEN = string.ascii_letters + string.digits
# Envoy's own family is among them: what it would believe of a client.
_STEERING = (
    "x-envoy-upstream-alt-stat-name", "x-envoy-decorator-operation", "x-envoy-downstream-service-cluster", "x-request-id", "traceparent",
    "x-forwarded-for", "user-agent", "authorization", "cookie", "origin", "accept-encoding", "idempotency-key", "if-none-match",
)  # fmt: skip
# Requests one connection is used for at most.
_ROUND = 50
_PATIENCE_SECONDS = 10.0
_GONE = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


async def crowd(
    port: int, requests: int, seed: int, address: Callable[[Random], str], *, marker: str = "", workers: int = 8
) -> Counter[int | None]:
    """What was answered to so many requests, None where nothing was.

    Args:
        port: of the edge's plain listener.
        requests: how many; of one seed they are the same ones.
        seed: of what is made up.
        address: whom a connection comes from.
        marker: what is in every name that is made up.
        workers: connections at a time.
    """
    seen: Counter[int | None] = Counter()

    async def work(number: int) -> None:
        random = Random(f"{seed} {number}")
        left = requests // workers
        while left > 0:
            messages = [_request(random, marker) for _ in range(min(left, random.randint(1, _ROUND)))]
            answers = await _connection(port, address(random), messages) or [None]
            seen.update(answers)
            left -= len(answers)

    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(work(number))
    return seen


async def _connection(port: int, address: str, messages: list[bytes]) -> list[int | None]:
    """Until the edge ends it, as it does after what is no request at all."""
    answers: list[int | None] = []
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        for message in messages:
            writer.write(message)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                status, ends = await _answer(reader, head=message.startswith(b"HEAD "))
            answers.append(status)
            if ends:
                break
    except _GONE:
        answers.append(None)
    finally:
        if writer is not None:
            writer.transport.abort()
    return answers


async def _answer(reader: asyncio.StreamReader, *, head: bool) -> tuple[int, bool]:
    """A status, and whether the connection ends with it."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    status = int(lines[0].split(" ")[1])
    length = next((int(line[16:]) for line in lines if line.startswith("content-length: ")), 0)
    if not head and status not in (204, 304):
        await reader.readexactly(length)
    return status, "connection: close" in lines


def _request(random: Random, marker: str) -> bytes:
    def name(most: int = 12) -> str:
        return marker + "".join(random.choices(_TOKEN, k=random.randint(1, most)))

    method = random.choice(METHODS).decode() if random.random() < 0.8 else name(8).upper()
    path = (
        random.choice(PATHS).decode()
        if random.random() < 0.3
        else "/v1/" + "/".join(name() for _ in range(random.randint(1, 4)))
    )
    if random.random() < 0.5:
        path += ("&" if "?" in path else "?") + f"{name()}={name()}"
    lines = [f"{method} {path} HTTP/1.1", f"host: {name()}.{name()}.example", "content-length: 0"]
    for _ in range(random.randint(0, 8)):
        header = random.choice(_STEERING) if random.random() < 0.5 else f"x-{name()}"
        lines.append(f"{header}: {name(40)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
