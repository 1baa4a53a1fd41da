"""This checkout beside another one, by turns on two stacks: what a change costs, by operation, and in memory.

    .venv/bin/python tools/bench/compare.py ../other-checkout
    .venv/bin/python tools/bench/compare.py ../other-checkout --memory

A ratio is that of neighbouring measurements, because a machine's own speed drifts within minutes: below 1 is less than
the other's. With --memory both are started anew for each pair, and looked at when they have rested and again after
reads. Needs wrk.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

from checkout import OPERATIONS, Checkout, Reading

ROOT = Path(__file__).resolve().parents[2]
_FIRST_OFFSET = 5000
_REST_SECONDS = 5

Pair = tuple[Checkout, Checkout]


@contextmanager
def both(other: Path, first_offset: int) -> Iterator[Pair]:
    """This checkout and the other one, started and prepared; stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="compare-") as directory:
        this, that = (
            Checkout(root, Path(directory) / name, first_offset + step)
            for name, root, step in (("this", ROOT, 0), ("other", other, 500))
        )
        started: list[Checkout] = []
        try:
            for checkout in (this, that):
                checkout.start()
                started.append(checkout)
            yield this, that
        finally:
            for checkout in started:
                checkout.stop()


def by_turns(pair: Pair, operation: str, seconds: int) -> tuple[Reading, Reading]:
    """A reading of each, in random order."""
    this, other = pair
    if random.random() < 0.5:
        mine = this.measure(operation, seconds)
        return mine, other.measure(operation, seconds)
    theirs = other.measure(operation, seconds)
    return this.measure(operation, seconds), theirs


def compare_operations(pair: Pair, operations: Sequence[str], pairs: int, seconds: int) -> None:
    """Print what each operation costs, and its rate: the median of pairs, and the middle half of them."""
    for checkout in pair:
        checkout.prepare()
        for operation in operations:
            checkout.measure(operation, seconds)
    found: dict[str, list[tuple[Reading, Reading]]] = defaultdict(list)
    for _ in range(pairs):
        for operation in operations:
            found[operation].append(by_turns(pair, operation, seconds))
    print("| operation | CPU of a request, now and before | ratio (middle half) | rate: ratio (middle half) |")
    print("|---|---|---|---|")
    for operation, readings in found.items():
        mine, theirs = (median(reading[side].cpu for reading in readings) for side in (0, 1))
        cpu = _ratios([mine.cpu / theirs.cpu for mine, theirs in readings])
        rate = _ratios([mine.rate / theirs.rate for mine, theirs in readings])
        print(f"| {operation} | {mine:,.0f} and {theirs:,.0f} µs | {cpu} | {rate} |", flush=True)


def compare_memory(other: Path, first_offset: int, pairs: int, seconds: int) -> None:
    """Print the memory of each process: the median over starts, and of the differences."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {"at rest": {}, "after reads": {}}
    for _ in range(pairs):
        with both(other, first_offset) as pair:
            time.sleep(_REST_SECONDS)
            _look(pair, found["at rest"])
            for checkout in pair:
                checkout.prepare()
                checkout.measure("order read", seconds)
            _look(pair, found["after reads"])
    print("| process | when | memory now and before, MiB | difference (least to most) |")
    print("|---|---|---|---|")
    for when, processes in found.items():
        for name, sizes in sorted(processes.items()):
            mine, theirs = (median(size[side] for size in sizes) for side in (0, 1))
            differences = sorted(mine - theirs for mine, theirs in sizes)
            spread = f"{median(differences):+.1f} ({differences[0]:+.1f} to {differences[-1]:+.1f})"
            print(f"| {name} | {when} | {mine:.1f} and {theirs:.1f} | {spread} |")


def _look(pair: Pair, found: dict[str, list[tuple[float, float]]]) -> None:
    mine, theirs = (checkout.memory() for checkout in pair)
    for name in mine.keys() & theirs.keys():
        found.setdefault(name, []).append((mine[name], theirs[name]))


def _ratios(ratios: Sequence[float]) -> str:
    lower, _, upper = quantiles(ratios, n=4)
    return f"{median(ratios):.3f} ({lower:.3f} to {upper:.3f})"


def main() -> None:
    """Compare, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="root of the other checkout, with its .venv")
    parser.add_argument("--memory", action="store_true", help="compare memory instead of CPU time")
    parser.add_argument(
        "--operation", choices=OPERATIONS, action="append", help="only this one; may be given several times"
    )
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument(
        "--port-offset", type=int, default=_FIRST_OFFSET, help="of the first stack; the second's is 500 more"
    )
    arguments = parser.parse_args()
    other = arguments.other.resolve()
    if arguments.memory:
        compare_memory(other, arguments.port_offset, arguments.pairs, arguments.seconds)
        return
    with both(other, arguments.port_offset) as pair:
        compare_operations(pair, arguments.operation or list(OPERATIONS), arguments.pairs, arguments.seconds)


if __name__ == "__main__":
    main()
