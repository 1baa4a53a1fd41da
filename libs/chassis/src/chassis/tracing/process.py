"""What of the recorded is kept, and who sends it: of one process, for as long as it serves."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from chassis.config import Settings
from chassis.metrics.families import Reading
from chassis.tracing import library, spans
from chassis.tracing.conventions import is_server_fault
from chassis.tracing.exporter import Exporter
from chassis.tracing.spans import Span, Trace

# Of requests that are not sampled and are kept because they failed or were slow: a second, and at once. When everything
# fails, the first few say why, and sending them all would be one more thing that fails.
_KEPT_EACH_SECOND = 10.0
_KEPT_AT_ONCE = 50.0
_KEPT = Reading("backend_traces_kept_total", "Requests whose spans were kept, by why", "reason")
_SPANS = Reading("backend_spans_total", "Spans by what became of them", "outcome")


class Sink(Protocol):
    """Sends what is kept."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """Send what waits, and end."""
        ...

    def take(self, trace: Trace) -> None:
        """Send a trace soon; never blocks."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Spans, by what became of them."""
        ...


class Tracing:
    """Records the requests of this process, for the duration of the block.

    Whoever was sampled at the edge is kept. So is, of the others, what failed here by our fault or was slow here: the spans
    of this process, without those of processes in which the request went well.

    Args:
        sink: sends them; without, nothing is recorded.
        slow_seconds: what takes longer is slow.
    """

    def __init__(self, sink: Sink | None, slow_seconds: float = 1.0) -> None:
        self._sink = sink
        self._slow_seconds = slow_seconds
        self._left = _KEPT_AT_ONCE
        self._counted_at = monotonic()
        # By why.
        self.kept = {"sampled": 0, "failed": 0, "slow": 0, "too many": 0}

    @classmethod
    def configured(cls, service: str, settings: Settings) -> Tracing:
        """The one that a service's settings describe."""
        endpoint = settings.otel_exporter_otlp_endpoint
        resource = {
            "service.name": service,
            "service.version": settings.version,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            "deployment.environment.name": settings.environment,
        }
        if not endpoint:
            return cls(None)
        compress = settings.otel_exporter_otlp_compression == "gzip"
        if settings.tracer == "sdk":
            # Imported here: it takes a fifth of a second, and who has not chosen it need not have it.
            from chassis.tracing.sdk import SdkSink

            return cls(SdkSink(endpoint, resource, compress=compress), settings.trace_slow_seconds)
        return cls(Exporter(endpoint, resource, compress=compress), settings.trace_slow_seconds)

    def __enter__(self) -> Self:
        """Begin to record."""
        if self._sink is not None:
            self._sink.start()
            for outcome in self._sink.counts():
                _SPANS.read(partial(_count, self._sink, outcome), outcome)
            for why in self.kept:
                _KEPT.read(partial(self.kept.__getitem__, why), why)
            library.install()
            spans.recorder = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End, once what is kept has been sent or given up."""
        if self._sink is not None:
            spans.recorder = None
            self._sink.stop()

    def ended(self, trace: Trace, root: Span) -> bool:
        """Keep it, or let it go; which of both."""
        if trace.is_sampled:
            why = "sampled"
        elif is_server_fault(root.outcome):
            why = "failed" if self._may_keep() else "too many"
        elif root.ended - root.began > self._slow_seconds:
            why = "slow" if self._may_keep() else "too many"
        else:
            return False
        self.kept[why] += 1
        if self._sink is None or why == "too many":
            return False
        self._sink.take(trace)
        return True

    def _may_keep(self) -> bool:
        now = monotonic()
        self._left = min(_KEPT_AT_ONCE, self._left + (now - self._counted_at) * _KEPT_EACH_SECOND)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _count(sink: Sink, outcome: str) -> int:
    return sink.counts()[outcome]
