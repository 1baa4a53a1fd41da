"""What counting a unit of work costs, ours and prometheus-client's, in turns; microseconds, the least of many runs.

    .venv/bin/python tools/bench/metrics_cost.py

A hot read has five units of work in its two Python processes, and three other counts: two tokens, one read of the cache.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from chassis.context import RequestContext, serving
from chassis.metrics.families import LATENCY_BUCKETS, Counter
from chassis.metrics.work import meter
from prometheus_client import Counter as ClientsCounter
from prometheus_client import Histogram as ClientsHistogram

_RUNS, _EACH = 30, 20_000
_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"


def main() -> None:
    """Measure, and print."""
    command, operation = meter("valkey", "GET"), meter("http", "getOrder")
    decisions = Counter("backend_bench_total", "Of this measurement", result=("a", "b"))
    counter = ClientsCounter("requests", "The same", ["operation", "outcome"]).labels("getOrder", "OK")
    histogram = ClientsHistogram("seconds", "The same", ["operation"], buckets=LATENCY_BUCKETS).labels("getOrder")

    def clients() -> None:
        counter.inc()
        histogram.observe(0.0031)

    measured: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "a command": lambda: command.ended("OK", 0.0031),
        "an operation": lambda: operation.ended("OK", 0.0031),
        "a count": lambda: decisions.add("a"),
        "prometheus-client, counter and histogram": clients,
    }
    for flags in ("00", "01"):
        with serving(RequestContext("r" * 16, traceparent=_TRACEPARENT.format(flags=flags))):
            least = dict.fromkeys(measured, float("inf"))
            for _ in range(_RUNS):
                for what, do in measured.items():
                    least[what] = min(least[what], timeit.timeit(do, number=_EACH) / _EACH * 1e6)
        print("sampled" if flags == "01" else "not sampled")
        for what, microseconds in least.items():
            print(f"  {what:<42} {microseconds - least['nothing']:6.2f}")


if __name__ == "__main__":
    main()
