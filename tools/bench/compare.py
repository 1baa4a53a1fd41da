"""The hot order read of this checkout beside that of another one, by turns on two stacks: what a change costs.

    .venv/bin/python tools/bench/compare.py ../other-checkout

Whatever the two differ in, they are used through what both have: the `backend` command and the public API. The ratio is
that of neighbouring measurements, because a machine's own speed drifts within minutes. Needs wrk.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
_CONNECTIONS = 32
_FIRST_OFFSET = 5000


@dataclass(frozen=True)
class Reading:
    """One measurement: requests a second, and microseconds of CPU a request over all processes of the stack."""

    rate: float
    cpu: float


class Checkout:
    """A checkout with an environment of its own (`make bootstrap`), and the stack it runs.

    Args:
        root: of the checkout.
        data_dir: of the stack.
        port_offset: of the stack.
    """

    def __init__(self, root: Path, data_dir: Path, port_offset: int) -> None:
        self._backend = root / ".venv" / "bin" / "backend"
        self._data_dir = data_dir
        self._offset = port_offset

    def start(self) -> None:
        """Start the stack and place the order that is read."""
        self._run(
            "up", "--detach", "--data-dir", str(self._data_dir), "--port-offset", str(self._offset),
            "--rate-limit-scale", "10000",
        )  # fmt: skip
        status = json.loads(self._run("status", "--json", "--data-dir", str(self._data_dir)))
        self._url = status["endpoints"]["public"]
        self._login = status["demo"]["customer"]
        self._processes = {process["name"]: psutil.Process(process["pid"]) for process in status["processes"]}
        with httpx.Client(base_url=self._url, headers=self._credentials()) as http:
            products = http.get("/v1/products", params={"limit": 3}).raise_for_status().json()["items"]
            lines = [{"product_id": product["id"], "quantity": 1} for product in products]
            placed = http.post("/v1/orders", json={"items": lines}, headers={"idempotency-key": str(uuid.uuid4())})
            self._order = placed.raise_for_status().json()["id"]

    def stop(self) -> None:
        """Stop the stack."""
        self._run("down", "--data-dir", str(self._data_dir))

    def read(self, seconds: int) -> Reading:
        """Read the order for some seconds.

        Raises:
            SystemExit: an answer was no success.
        """
        credentials = self._credentials()["authorization"]
        before = self._cpu()
        output = subprocess.run(
            ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}", "-H", f"Authorization: {credentials}",
             f"{self._url}/v1/orders/{self._order}"],
            capture_output=True, encoding="utf-8", check=True,
        ).stdout  # fmt: skip
        used = self._cpu() - before
        requests, rate = (re.search(p, output) for p in (r"(\d+) requests in", r"Requests/sec:\s+([\d.]+)"))
        if "Non-2xx" in output or requests is None or rate is None:
            raise SystemExit(f"not all answers were a success\n{output}")
        return Reading(float(rate[1]), used / int(requests[1]) * 1e6)

    def memory(self) -> dict[str, float]:
        """Resident memory of each process, with its children, in MiB."""
        return {
            name: sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 2**20
            for name, process in self._processes.items()
        }

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([self._backend, *arguments], capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            raise SystemExit(f"{self._backend} {arguments[0]} failed\n{done.stdout}{done.stderr}")
        return done.stdout

    def _credentials(self) -> dict[str, str]:
        # An access token lives for minutes, a comparison longer.
        pair = httpx.post(f"{self._url}/v1/auth/login", json=self._login).raise_for_status().json()
        return {"authorization": f"Bearer {pair['access_token']}"}

    def _cpu(self) -> float:
        total = 0.0
        for process in self._processes.values():
            for one in [process, *process.children(recursive=True)]:
                times = one.cpu_times()
                total += times.user + times.system
        return total


def compare(this: Checkout, other: Checkout, pairs: int, seconds: int) -> list[tuple[Reading, Reading]]:
    """Readings of both by turns, each pair in random order."""
    for checkout in (this, other):
        checkout.read(seconds)
    found = []
    for number in range(pairs):
        if random.random() < 0.5:
            mine, theirs = this.read(seconds), other.read(seconds)
        else:
            theirs, mine = other.read(seconds), this.read(seconds)
        found.append((mine, theirs))
        print(
            f"{number + 1}: CPU {mine.cpu:.0f} and {theirs.cpu:.0f} µs, {mine.rate:.0f} and {theirs.rate:.0f}/s",
            flush=True,
        )
    return found


def main() -> None:
    """Compare, and print the ratios: this to the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="root of the other checkout, with its .venv")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument(
        "--port-offset", type=int, default=_FIRST_OFFSET, help="of the first stack; the second's is 500 more"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compare-") as directory:
        this, other = (
            Checkout(root, Path(directory) / name, arguments.port_offset + step)
            for name, root, step in (("this", ROOT, 0), ("other", arguments.other.resolve(), 500))
        )
        started: list[Checkout] = []
        try:
            for checkout in (this, other):
                checkout.start()
                started.append(checkout)
            found = compare(this, other, arguments.pairs, arguments.seconds)
            memory, of_the_other = this.memory(), other.memory()
        finally:
            for checkout in started:
                checkout.stop()
    for what, ratios in (
        ("CPU a request", [mine.cpu / theirs.cpu for mine, theirs in found]),
        ("rate", [mine.rate / theirs.rate for mine, theirs in found]),
    ):
        lower, _, upper = quantiles(ratios, n=4)
        print(f"{what}: {median(ratios):.3f} of the other's (middle half {lower:.3f} to {upper:.3f})")
    for name in sorted(memory.keys() & of_the_other.keys()):
        print(f"memory of {name}: {memory[name]:.1f} and {of_the_other[name]:.1f} MiB")


if __name__ == "__main__":
    main()
