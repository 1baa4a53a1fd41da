"""Traces: which unit of work was a part of which, and how long each took (docs/observability.md, ADR 0032).

`spans` records them, as `chassis.observe` begins and ends them; `conventions` says what they are called; `process` decides
which are kept; `otlp` and `exporter` send those to any OTLP receiver, `sdk` leaves that to OpenTelemetry's SDK; `library`
is what other people's instrumentation sees of all this.
"""
