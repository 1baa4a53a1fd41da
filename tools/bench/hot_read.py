"""The Python of a hot read, by itself: what the BFF and the Order service spend on GET /v1/orders/{id}, before and after.

    .venv/bin/python tools/bench/hot_read.py [COMMIT]

The services' own applications answer in this process's children, over a host and a Valkey that cost next to nothing
(`hot_read_service.py`). One pair of children runs this checkout, one pair the other commit (without: the one before the
path was made lean), by turns, so that both see the same machine. Needs no stack and no network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
_SERVICE = Path(__file__).with_name("hot_read_service.py")
_BEFORE = "64dbd7d"
SERVICES = ("bff", "order")


class Child:
    """One service of one checkout in a process of its own.

    Args:
        checkout: whose source runs; the installed dependencies are this checkout's.
        service: of SERVICES.
    """

    def __init__(self, checkout: Path, service: str) -> None:
        sources = [*checkout.glob("libs/*/src"), *checkout.glob("services/*/src")]
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVICE), service],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def read(self, requests: int) -> float:
        """Microseconds of CPU a request, over so many of them."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the child was made with pipes")
        print(requests, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def stop(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A work tree of that commit, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="hot-read-") as directory:
        tree = Path(directory) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def measure(before: Path, rounds: int, requests: int) -> dict[str, list[tuple[float, float]]]:
    """By service, what a request costs (this checkout, the other), in each round."""
    found: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        for service in SERVICES:
            now, then = Child(ROOT, service), Child(before, service)
            stack.callback(now.stop)
            stack.callback(then.stop)
            for child in (now, then):
                child.read(requests)
            pairs = found[service] = []
            for number in range(rounds):
                if number % 2:
                    first = now.read(requests)
                    pairs.append((first, then.read(requests)))
                else:
                    second = then.read(requests)
                    pairs.append((now.read(requests), second))
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default=_BEFORE, help="what this checkout is compared with")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--requests", type=int, default=2000, help="of one round")
    arguments = parser.parse_args()
    with checked_out(arguments.commit) as before:
        found = measure(before, arguments.rounds, arguments.requests)
    for service, pairs in found.items():
        now, then = (median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = median(one / other for one, other in pairs)
        print(
            f"{service:<6} {now:6.1f} us of Python a read, {then:6.1f} us at {arguments.commit[:10]}: {ratio:.3f} of it"
        )


if __name__ == "__main__":
    main()
