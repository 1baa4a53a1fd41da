"""What tracing costs: the hot read on stacks that differ in nothing else, by turns; CPU of a request over all processes.

    .venv/bin/python tools/bench/telemetry.py --rounds 9 --seconds 3

Needs wrk, and some 3 GiB. `console` is what keeps the spans: in production it is a collector, and another machine's.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from statistics import median, quantiles

from checkout import Checkout, Reading

ROOT = Path(__file__).resolve().parents[2]
_OPERATION = "order read"
_KINDS = {
    "off": ("--without", "tracing"),
    "10 %": (),
    "100 %": ("--trace-ratio", "1"),
    "10 %, SDK": ("--tracer", "sdk"),
    "100 %, SDK": ("--trace-ratio", "1", "--tracer", "sdk"),
}
_FIRST_OFFSET = 12000


def measure(stacks: dict[str, Checkout], rounds: int, seconds: int) -> dict[str, list[Reading]]:
    """Readings of each, a round at a time, each round in another order."""
    for stack in stacks.values():
        stack.prepare()
        stack.measure(_OPERATION, seconds)
    found: dict[str, list[Reading]] = {kind: [] for kind in stacks}
    for number in range(rounds):
        order = list(stacks)
        random.shuffle(order)
        for kind in order:
            found[kind].append(stacks[kind].measure(_OPERATION, seconds))
        print(f"{number + 1}: " + ", ".join(f"{kind} {found[kind][-1].cpu:.0f} µs" for kind in stacks), flush=True)
    return found


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=_KINDS, action="append", help="beside `off`, only this one; repeatable")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--port-offset", type=int, default=_FIRST_OFFSET, help="of the first stack; 100 more for each")
    arguments = parser.parse_args()
    kinds = {kind: options for kind, options in _KINDS.items() if kind in ["off", *(arguments.kind or _KINDS)]}
    with tempfile.TemporaryDirectory(prefix="telemetry-") as directory:
        stacks = {
            kind: Checkout(ROOT, Path(directory) / str(number), arguments.port_offset + 100 * number, options)
            for number, (kind, options) in enumerate(kinds.items())
        }
        started: list[Checkout] = []
        try:
            for stack in stacks.values():
                stack.start()
                started.append(stack)
            found = measure(stacks, arguments.rounds, arguments.seconds)
        finally:
            for stack in started:
                stack.stop()
    print(
        "\n| tracing | CPU of a request | of that without (middle half) | the quicker quarter | edge · bff · order · console |"
    )
    print("|---|---|---|---|---|")
    for kind, readings in found.items():
        lower, middle, upper = quantiles([r.cpu / off.cpu for r, off in zip(readings, found["off"], strict=True)], n=4)
        # What others do on the machine only ever makes a request dearer.
        quick, off = (quantiles([reading.cpu for reading in one], n=4)[0] for one in (readings, found["off"]))
        parts = (
            median(reading.processes[name] for reading in readings) for name in ("edge", "bff", "order", "console")
        )
        print(
            f"| {kind} | {median(reading.cpu for reading in readings):.0f} µs | {middle:.3f} ({lower:.3f} to {upper:.3f}) "
            f"| {quick:.0f} µs, {quick / off:.3f} | {' · '.join(f'{part:.0f}' for part in parts)} µs |"
        )


if __name__ == "__main__":
    main()
