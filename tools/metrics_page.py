"""docs/metrics.md: every family of the code, and the statistics of Envoy that are kept; `--check` says whether it is current.

Apart from tools/generate.py because it imports the services whole, which do not have to be importable while a contract changes.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path

import chassis
from chassis.metrics.families import FAMILIES, Counter, Family
from mesh.statistics import STATISTICS
from mesh.topology import SERVICES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
_HEAD = """\
# Metrics

Made by `tools/metrics_page.py` from the code (`make generate`). `/metrics` of each ops listener has all of a process, Envoy's
included; [observability.md](observability.md#metrics) says what to look at, [ADR 0033](adr/0033-metrics.md) why it is so.

A histogram has the series `…_bucket`, `…_sum` and `…_count`. Values of a label are listed where the code knows them beforehand;
any other is counted as `other`. `outcome` is `OK`, `CANCELLED`, a reason of `api/errors.yaml`, or `other`.
"""


def page() -> str:
    """The page's Markdown."""
    for module in pkgutil.walk_packages(chassis.__path__, "chassis."):
        # What is imported only where it is chosen counts nothing of its own.
        if module.name != "chassis.tracing.sdk":
            importlib.import_module(module.name)
    seen = dict(FAMILIES)
    parts = [_HEAD, *_section("In every service, as far as it has what is counted", seen.values())]
    for service in SERVICES:
        importlib.import_module(f"{service.package}.main")
        new = {name: family for name, family in FAMILIES.items() if name not in seen}
        if new:
            parts += _section(f"In {service.name}", new.values())
        seen |= new
    parts += [
        "## Of Envoy\n",
        "Statistics that every Envoy keeps (`libs/mesh/src/mesh/statistics.py`), by Envoy's own names, which its documentation",
        'explains: `cluster.bff.upstream_rq_total` is `envoy_cluster_upstream_rq_total{envoy_cluster_name="bff"}`. Times are',
        "milliseconds.\n",
        "| of | kept |",
        "|---|---|",
    ]
    parts += [f"| {_code(scope)} | {', '.join(map(_code, names))} |" for scope, names in STATISTICS.items()]
    return "\n".join(parts) + "\n"


def _section(title: str, families: Iterable[Family]) -> list[str]:
    rows = [
        f"| `{family.name}` | {family.kind} | {_labels(family)} | {family.documentation} |"
        for family in sorted(families, key=lambda family: family.name)
    ]
    return [f"## {title}\n", "| name | kind | labels | what it is |", "|---|---|---|---|", *rows, ""]


def _labels(family: Family) -> str:
    known = family.known if isinstance(family, Counter) else {}
    return "; ".join(
        f"`{label}`" + (f": {', '.join(sorted(known[label]))}" if label in known else "") for label in family.labels
    )


def _code(pattern: str) -> str:
    """A name as people write it: a pattern's escapes are no part of it."""
    return f"`{pattern.replace(chr(92) + '.', '.').replace('|', '&#124;')}`"


def main() -> None:
    """Write the page, or with --check exit 1 when it is not current."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is not current, run `make generate`")


if __name__ == "__main__":
    main()
