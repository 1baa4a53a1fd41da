"""Fuzzes the edge of a running stack beside a reader who must see nothing of it.

    .venv/bin/python tools/fuzz_edge.py --data-dir .backend --seconds 600 --seed 7

Mutated methods, paths, authorities, schemes, headers, trailers and bodies, over HTTP/1.1, HTTP/2 in the clear and over TLS,
and HTTP/3; streams reset, connections aborted, requests left unfinished. It fails when an answer to the reader (a customer
who is logged in, ten requests a second) was not 200, when a connection between our own processes ended, a stream on it
was reset or a replica was left out, and when a mutated request was answered with a 5xx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypedDict

import httpx
from devstack.layout import Layout
from fuzz.mutations import shots
from fuzz.senders import SENDERS, Target
from fuzz.watch import Reader, upstream_ends
from mesh.topology import EDGE, row

# Requests one connection is used for at most.
_ROUND = 20


def client_address(source: random.Random) -> str:
    """One of this machine's own; limits count by address."""
    return f"127.{source.randrange(1, 255)}.{source.randrange(256)}.{source.randrange(1, 255)}"


async def fuzz(
    target: Target, seconds: float, seed: int, *, protocols: Sequence[str] = tuple(SENDERS), workers: int = 3
) -> Mapping[str, Counter[int | None]]:
    """Send mutated requests for `seconds`; what was answered, by protocol."""
    answers: dict[str, Counter[int | None]] = {protocol: Counter() for protocol in protocols}
    give_up = time.monotonic() + seconds

    async def work(protocol: str, number: int) -> None:
        source = random.Random(f"{seed} {protocol} {number}")
        requests, address = shots(source), client_address(source)
        while time.monotonic() < give_up:
            # Half of them come from exactly 127.0.0.1, which Envoy may take for an internal address. Resets come from a few
            # addresses that stay the same, because the limits of each bound the load that resets are.
            if number % 2 == 0:
                address = "127.0.0.1"
            elif protocol != "resets":
                address = client_address(source)
            answers[protocol].update(await SENDERS[protocol](target, list(islice(requests, _ROUND)), address))

    async with asyncio.TaskGroup() as group:
        for protocol in protocols:
            for number in range(workers):
                group.create_task(work(protocol, number))
    return answers


class Status(TypedDict):
    """What is used of `backend status --json`."""

    endpoints: Mapping[str, str]
    demo: Mapping[str, Mapping[str, str]]


def stack_of(data_dir: Path) -> tuple[Status, Target]:
    """A running stack's status (`backend status --json`), and its edge."""
    command = [str(Path(sys.executable).parent / "backend"), "status", "--json", "--data-dir", str(data_dir)]
    status: Status = json.loads(subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout)
    port = {name: httpx.URL(status["endpoints"][name]).port or 0 for name in ("public", "public_tls")}
    authority = Layout(data_dir).certificates / "public" / "ca.crt"
    return status, Target(port["public"], port["public_tls"], authority)


async def run(status: Status, target: Target, seconds: float, seed: int) -> bool:
    """Whether nobody noticed; prints what was answered."""
    endpoints = status["endpoints"]
    transport = httpx.AsyncHTTPTransport(local_address=client_address(random.Random(seed)))
    async with httpx.AsyncClient(base_url=endpoints["public"], transport=transport, timeout=10) as http:
        login = await http.post("/v1/auth/login", json=status["demo"]["customer"])
        token, renew_at = login.json()["access_token"], time.monotonic() + 240

        async def read() -> httpx.Response:
            nonlocal token, renew_at
            if time.monotonic() > renew_at:
                again = await http.post("/v1/auth/login", json=status["demo"]["customer"])
                token, renew_at = again.json()["access_token"], time.monotonic() + 240
            return await http.get("/v1/orders", headers={"authorization": f"Bearer {token}"})

        async def ends() -> dict[str, Mapping[str, float]]:
            hops = [(EDGE.name, EDGE.api), *((EDGE.api, called) for called in row(EDGE.api).upstreams)]
            return {f"{who} to {called}": await upstream_ends(endpoints[f"{who}_ops"], called) for who, called in hops}

        await asyncio.gather(*(read() for _ in range(20)))
        before = await ends()
        async with Reader(read).running() as seen:
            answers = await fuzz(target, seconds, seed)
        after = await ends()
    for protocol, statuses in answers.items():
        print(f"{protocol:9} {statuses.total():7,}  {dict(statuses.most_common())}")
    print(f"reader    {seen.total():7,}  {dict(seen)}")
    for hop, counted in after.items():
        print(f"{hop}: { {name: value - before[hop][name] for name, value in counted.items()} }")
    own_fault = any(status and status >= 500 for statuses in answers.values() for status in statuses)
    return set(seen) == {"200"} and before == after and not own_fault


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    sys.exit(0 if asyncio.run(run(*stack_of(chosen.data_dir), chosen.seconds, chosen.seed)) else 1)


if __name__ == "__main__":
    main()
