"""What a unit of work costs as a span, in µs of CPU of one process: recorded and let go, and sent by ours and by the SDK.

    .venv/bin/python tools/bench/spans.py

A request here is an operation with a Valkey command and a call in it. Needs no stack; the receiver is a port where nobody is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

from chassis.context import RequestContext
from chassis.observe import Work, observe, served
from chassis.tracing import conventions, otlp
from chassis.tracing.exporter import Exporter
from chassis.tracing.process import Tracing
from chassis.tracing.sdk import SdkSink
from chassis.tracing.spans import Trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span

# What else the machine does only ever makes it slower: of what one thread does, the least of many short rounds counts. Of what
# a thread of its own sends, a round has to have some.
_ROUNDS, _REQUESTS = 150, 300
_SENT_ROUNDS, _SENT_REQUESTS = 9, 2000
_SPANS = 3
_FLAGS = {"sampled": "01", "not sampled": "00"}
_OPERATION = Work("http", "getOrder", served, conventions.http_server("GET", "/v1/orders/{order_id}"))
_LOOK = Work("valkey", "MGET", span=conventions.valkey("MGET"))
_CALL = Work("call", "a.B/C", span=conventions.rpc_client("order.v1.OrderService/GetOrder", "order"))


class _Nothing:
    """A sink that keeps nothing."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def take(self, trace: Trace) -> None:
        trace.forget()

    def counts(self) -> dict[str, int]:
        return {}


def _requests(flags: str, count: int = _REQUESTS) -> None:
    context = RequestContext("0197f6a2-5d6e-7cc3-9f6e-6c3c0b6ad0a1", traceparent=f"00-{'4b' * 16}-{'0f' * 8}-{flags}")
    for _ in range(count):
        with observe(_OPERATION, context):
            with observe(_LOOK):
                pass
            with observe(_CALL) as unit:
                if unit.span is not None:
                    unit.span.traceparent()


def _cost(run: Callable[[], None]) -> float:
    """µs of CPU of _REQUESTS requests, for each."""
    run()
    return min(_seconds(run) for _ in range(_ROUNDS)) / _REQUESTS * 1e6


def _sent() -> float:
    """µs of CPU of a sampled request, of all threads."""
    return (
        median(_seconds(partial(_requests, "01", _SENT_REQUESTS)) for _ in range(_SENT_ROUNDS)) / _SENT_REQUESTS * 1e6
    )


def _seconds(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def _encoded(*, by_hand: bool) -> float:
    kept: list[Trace] = []

    class Kept(_Nothing):
        def take(self, trace: Trace) -> None:
            kept.append(trace)

    with Tracing(Kept()):
        _requests("01")

    def hand() -> None:
        otlp.request(kept, {"service.name": "bff"})

    def generated() -> None:
        for trace in kept:
            for span in trace.spans:
                message = Span(
                    trace_id=bytes.fromhex(trace.trace_id), span_id=span.identify().to_bytes(8, "big"),
                    name=span.description.name, start_time_unix_nano=1, end_time_unix_nano=2,
                )  # fmt: skip
                for key, value in (*span.description.attributes.items(), *conventions.of_outcome(span)):
                    message.attributes.add(key=key).value.string_value = str(value)
                message.SerializeToString()

    return _cost(hand if by_hand else generated) / _SPANS


def main() -> None:
    """Measure, and print."""
    nothing = _cost(partial(_requests, "00"))
    print(f"no telemetry: {nothing:.2f} µs for three units of work")
    for name, flags in _FLAGS.items():
        with Tracing(_Nothing()):
            print(f"{name}, recorded: {(_cost(partial(_requests, flags)) - nothing) / _SPANS:.2f} µs a unit more")
    print(
        f"encoded by hand: {_encoded(by_hand=True):.2f} µs a span; by generated classes: {_encoded(by_hand=False):.2f}"
    )
    resource = {"service.name": "bff"}
    for name, sink in (
        ("ours", Exporter("http://127.0.0.1:9", resource, compress=False, most_waiting=10**7)),
        ("the SDK", SdkSink("http://127.0.0.1:9", resource, compress=False)),
    ):
        with Tracing(sink):
            print(f"handed to {name}: {(_sent() - nothing) / _SPANS:.2f} µs a span")


if __name__ == "__main__":
    main()
