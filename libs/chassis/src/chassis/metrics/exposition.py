"""All families as text: of Prometheus 0.0.4, or of OpenMetrics 1.0 for whoever accepts that, with Envoy's joined on.

Envoy's names are the same in both. OpenMetrics wants every counter to end in `_total`, which not all of Envoy's do, so
there they are of unknown type; Prometheus takes no notice of types. The edge has no Python, and tells Envoy's alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from chassis.metrics.families import Family, Sample

_OPEN = "application/openmetrics-text"
_PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OPEN_TYPE = f"{_OPEN}; version=1.0.0; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_ENVOYS_COUNTER = re.compile(r"^# TYPE (\S+) counter$", re.MULTILINE)
# A bound of a bucket that is a whole number.
_ENVOYS_BOUND = re.compile(r'\ble="([0-9]+)"')


def wants_open_metrics(accept: str) -> bool:
    """Whether an `Accept` header takes OpenMetrics (RFC 9110, section 12.5.1); its weights do not matter to us."""
    return any(part.partition(";")[0].strip().lower() == _OPEN for part in accept.split(","))


def exposition(families: Iterable[Family], envoys: str, *, open_metrics: bool) -> tuple[str, str]:
    """The media type, and the text.

    Args:
        families: what to tell.
        envoys: the same of Envoy, in the Prometheus text format.
        open_metrics: which of the two formats.
    """
    lines = [line for family in families for line in _lines(family, open_metrics=open_metrics)]
    ours = "".join(lines)
    if not open_metrics:
        return _PROMETHEUS_TYPE, ours + envoys
    return _OPEN_TYPE, ours + _as_open_metrics(envoys) + "# EOF\n"


def _lines(family: Family, *, open_metrics: bool) -> Iterator[str]:
    # In OpenMetrics the suffix is no part of the family's name.
    name = family.name.removesuffix("_total") if open_metrics else family.name
    yield f"# HELP {name} {family.documentation}\n# TYPE {name} {family.kind}\n"
    for sample in family.samples():
        example = _exemplar(sample) if open_metrics else ""
        yield f"{family.name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}{example}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels) + "}"


def _exemplar(sample: Sample) -> str:
    found = sample.exemplar
    if found is None:
        return ""
    return f" # {_labels((('trace_id', found.trace_id),))} {_number(found.value)} {found.time:.3f}"


def _as_open_metrics(envoys: str) -> str:
    text = _ENVOYS_BOUND.sub(r'le="\1.0"', _ENVOYS_COUNTER.sub(r"# TYPE \1 unknown", envoys))
    # Empty lines, which Envoy writes between families, are not allowed.
    return "".join(f"{line}\n" for line in text.splitlines() if line)
