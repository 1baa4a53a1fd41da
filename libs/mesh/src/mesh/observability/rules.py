"""Prometheus's rules, of the objectives and the alerts."""

from __future__ import annotations

import re
from typing import TypedDict

import yaml

from mesh.observability import objectives
from mesh.observability.alerts import ALERTS, Alert, page
from mesh.observability.conditions import duration

_HOUR = 3600.0
# How often rules are evaluated; those that look at days cost more, and change less.
_SECONDS, _LONG_SECONDS = 30.0, 180.0


# One rule, which records or alerts.
Rule = TypedDict(
    "Rule",
    {
        "record": str,
        "alert": str,
        "expr": str,
        # A word of Python's, so that it cannot be written as a member of a class.
        "for": str,
        "labels": dict[str, str],
        "annotations": dict[str, str],
    },
    total=False,
)


class Group(TypedDict):
    """Rules that are evaluated together, in their order."""

    name: str
    interval: str
    rules: list[Rule]


def rules(factor: float = 1) -> str:
    """The file, as YAML.

    Args:
        factor: see `mesh.observability.conditions`; a name that says a window says the one of factor 1.
    """
    recorded: dict[bool, list[Rule]] = {False: [], True: []}
    for found in objectives.recorded(factor):
        labels = {objectives.CLASS: found.operation_class}
        recorded[found.window > _HOUR].append(Rule(record=found.name, expr=_Text(found.promql), labels=labels))
    groups = [
        Group(name="budgets", interval=duration(_SECONDS / factor), rules=recorded[False]),
        Group(name="budgets over long windows", interval=duration(_LONG_SECONDS / factor), rules=recorded[True]),
        Group(name="alerts", interval=duration(_SECONDS / factor), rules=[_alert(alert, factor) for alert in ALERTS]),
    ]
    return yaml.dump({"groups": groups}, Dumper=_Dumper, sort_keys=False, width=1000)


def _alert(alert: Alert, factor: float) -> Rule:
    rule = Rule(alert=alert.name, expr=_Text(alert.promql(factor)))
    if alert.lasts:
        rule["for"] = duration(alert.lasts / factor)
    rule["labels"] = {"severity": alert.severity}
    rule["annotations"] = {
        "summary": re.sub(r"\{(\w+)\}", r"{{ $labels.\1 }}", alert.summary),
        "runbook": page(alert),
    }
    return rule


class _Text(str):
    """Several lines, written as such."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Text,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", str(text), style="|" if "\n" in text else None
    ),
)
