"""Grafana's dashboards, as far as ours need them: rows of panels that ask Prometheus, written as its JSON model.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Json: TypeAlias = Mapping[str, "Json"] | Sequence["Json"] | str | float | bool | None

# The JSON model of Grafana 11; newer ones read it and bring it up to date.
_SCHEMA_VERSION = 39
_COLUMNS = 24
_PROMETHEUS: Json = {"type": "prometheus", "uid": "${datasource}"}
_TAG = "backend"


@dataclass(frozen=True, slots=True)
class Query:
    """A line, or several that differ in a label: `{{label}}` in the legend stands for its value."""

    promql: str
    legend: str = ""
    # Whether traces of single requests are shown as points.
    has_exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Args:
        title: what it shows.
        queries: what is drawn.
        unit: one of Grafana's (`s`, `ms`, `bytes`, `percentunit`, `reqps`, `short`).
        kind: lines over time, one big number each, or a table of what is now.
        says: what to make of it, in a sentence.
        width: of 24 columns.
        stacked: lines on top of each other.
        bounds: values from which on it is orange and red; the other way round when they fall.
    """

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    says: str = ""
    width: int = 8
    stacked: bool = False
    bounds: tuple[float, float] | None = None

    @property
    def height(self) -> int:
        """Lines of the grid."""
        return 5 if self.kind == "stat" else 8

    def model(self, identifier: int, x: int, y: int) -> Json:
        """As Grafana has it, at a place of the grid."""
        custom: dict[str, Json] = {"fillOpacity": 25 if self.stacked else 8, "showPoints": "never"}
        if self.stacked:
            custom["stacking"] = {"mode": "normal"}
        defaults: dict[str, Json] = {"unit": self.unit, "min": 0, "custom": custom}
        if self.kind != "timeseries":
            del defaults["custom"], defaults["min"]
        if self.bounds is not None:
            defaults["thresholds"] = {"mode": "absolute", "steps": list(_steps(*self.bounds))}
        return {
            "id": identifier,
            "type": self.kind,
            "title": self.title,
            "description": self.says,
            "datasource": _PROMETHEUS,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": _OPTIONS[self.kind],
            "targets": [self._target(number, query) for number, query in enumerate(self.queries)],
        }

    def _target(self, number: int, query: Query) -> Json:
        return {
            "refId": chr(ord("A") + number),
            "datasource": _PROMETHEUS,
            "expr": query.promql,
            "legendFormat": query.legend or "__auto",
            "exemplar": query.has_exemplars,
            "instant": self.kind == "table",
            "range": self.kind != "table",
            "format": "table" if self.kind == "table" else "time_series",
        }


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a title."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; all of them link to each other."""

    # In its address, and the name of its file.
    uid: str
    title: str
    says: str
    rows: Sequence[Row] = field(default=())

    @property
    def queries(self) -> Iterator[Query]:
        """All of all panels."""
        return (query for row in self.rows for panel in row.panels for query in panel.queries)

    def text(self) -> str:
        """The file."""
        model: Json = {
            "uid": self.uid,
            "title": self.title,
            "description": self.says,
            "tags": [_TAG],
            "schemaVersion": _SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,
            "timezone": "utc",
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [{"type": "datasource", "name": "datasource", "query": "prometheus"}]},
            "annotations": {"list": [_ALERTS]},
            "links": [{"type": "dashboards", "tags": [_TAG], "title": "Backend", "asDropdown": True, "keepTime": True}],
            "panels": list(self._panels()),
        }
        return json.dumps(model, indent=1) + "\n"

    def _panels(self) -> Iterator[Json]:
        identifier, y = 1, 0
        for row in self.rows:
            place: Json = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
            yield {
                "id": identifier,
                "type": "row",
                "title": row.title,
                "gridPos": place,
                "collapsed": False,
                "panels": [],
            }
            identifier, y, x, height = identifier + 1, y + 1, 0, 0
            for panel in row.panels:
                if x + panel.width > _COLUMNS:
                    x, y, height = 0, y + height, 0
                yield panel.model(identifier, x, y)
                identifier, x, height = identifier + 1, x + panel.width, max(height, panel.height)
            y += height


_OPTIONS: Mapping[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "area"},
    "table": {"showHeader": True},
}
# When an alert fired is drawn over every panel.
_ALERTS: Json = {
    "name": "alerts",
    "datasource": _PROMETHEUS,
    "enable": True,
    "iconColor": "red",
    "expr": 'ALERTS{alertstate="firing"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "{{service}} {{instance}} {{class}}",
}


def _steps(orange: float, red: float) -> Iterator[Json]:
    first, second, third = ("green", "orange", "red") if orange < red else ("red", "orange", "green")
    yield {"color": first, "value": None}
    yield {"color": second, "value": min(orange, red)}
    yield {"color": third, "value": max(orange, red)}
