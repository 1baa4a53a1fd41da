"""What tracing costs: the hot read on stacks that differ in nothing else, by turns; CPU of a request over all processes.

    .venv/bin/python tools/bench/telemetry.py --starts 4 --rounds 4 --seconds 3

`make bench` measures it, too. Needs wrk, and some 700 MiB for each kind. `console` is what keeps the spans: in production
it is a collector, and another machine's.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles

from checkout import Checkout, Reading
from measured import TracingCost

ROOT = Path(__file__).resolve().parents[2]
_OPERATION = "order read"
_OFF = "off"
KINDS = {
    _OFF: ("--without", "tracing"),
    "10 %": (),
    "100 %": ("--trace-ratio", "1"),
    "10 %, SDK": ("--tracer", "sdk"),
    "100 %, SDK": ("--trace-ratio", "1", "--tracer", "sdk"),
}
# What was promised of them, as a share of the CPU of a request without tracing.
BOUNDS = {"10 %": 0.05, "100 %": 0.20}
_PROCESSES = ("edge", "bff", "order", "console")
_FIRST_OFFSET = 12000


def measure(
    kinds: Iterable[str], starts: int, rounds: int, seconds: int, port_offset: int = _FIRST_OFFSET
) -> dict[str, TracingCost]:
    """What each kind of tracing costs beside none, each on a stack of its own.

    Two stacks of one kind differ by up to 4 % for as long as they run (docs/performance.md, `nothing`), which no number of
    rounds takes away; so all are started several times.

    Args:
        kinds: of KINDS, besides `off`.
        starts: how often all stacks are started.
        rounds: how often each is measured then, each round in another order.
        seconds: length of one measurement.
        port_offset: of the first stack; 100 more for each.
    """
    readings: dict[str, list[Reading]] = {kind: [] for kind in dict.fromkeys((_OFF, *kinds))}
    for _ in range(starts):
        with tempfile.TemporaryDirectory(prefix="telemetry-") as directory:
            stacks = {
                kind: Checkout(ROOT, Path(directory) / str(number), port_offset + 100 * number, KINDS[kind])
                for number, kind in enumerate(readings)
            }
            try:
                for stack in stacks.values():
                    stack.start()
                for kind, found in _readings(stacks, rounds, seconds).items():
                    readings[kind] += found
            finally:
                for stack in stacks.values():
                    stack.stop()
    return {kind: _cost(one, readings[_OFF]) for kind, one in readings.items()}


def _readings(stacks: Mapping[str, Checkout], rounds: int, seconds: int) -> dict[str, list[Reading]]:
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


def _cost(readings: Sequence[Reading], off: Sequence[Reading]) -> TracingCost:
    lower, middle, upper = quantiles([one.cpu / without.cpu for one, without in zip(readings, off, strict=True)], n=4)
    # What others do on the machine only ever makes a request dearer.
    quick, quick_off = (quantiles([reading.cpu for reading in one], n=4)[0] for one in (readings, off))
    return TracingCost(
        cpu=median(reading.cpu for reading in readings),
        ratio=middle,
        middle_half=(lower, upper),
        quick=quick,
        quick_ratio=quick / quick_off,
        processes={name: median(reading.processes[name] for reading in readings) for name in _PROCESSES},
    )


def table(costs: Mapping[str, TracingCost]) -> list[str]:
    """In Markdown."""
    return [
        f"| tracing | CPU of a request | of that without (middle half) | the quicker quarter | {' · '.join(_PROCESSES)} |",
        "|---|---|---|---|---|",
        *(
            f"| {kind} | {cost.cpu:.0f} µs | {cost.ratio:.3f} ({cost.middle_half[0]:.3f} to {cost.middle_half[1]:.3f}) "
            f"| {cost.quick:.0f} µs, {cost.quick_ratio:.3f} "
            f"| {' · '.join(f'{cost.processes[name]:.0f}' for name in _PROCESSES)} µs |"
            for kind, cost in costs.items()
        ),
    ]


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, action="append", help="beside `off`, only this one; repeatable")
    parser.add_argument("--starts", type=int, default=4, help="how often all stacks are started")
    parser.add_argument("--rounds", type=int, default=4, help="how often each is measured then")
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--port-offset", type=int, default=_FIRST_OFFSET, help="of the first stack; 100 more for each")
    arguments = parser.parse_args()
    costs = measure(
        arguments.kind or KINDS, arguments.starts, arguments.rounds, arguments.seconds, arguments.port_offset
    )
    print("\n" + "\n".join(table(costs)))


if __name__ == "__main__":
    main()
