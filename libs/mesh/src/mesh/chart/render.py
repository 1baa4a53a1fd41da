"""Every generated file of the chart: what it knows of the services, its values, and the schema that refuses all others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath

import yaml
from chassis.version import __version__
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from mesh.chart import rows
from mesh.chart.rows import Settings
from mesh.chart.values import Chart
from mesh.observability import render as observability
from mesh.topology import Service, row

FOLDER = PurePosixPath("deploy/helm/backend")
# What the templates read. Nothing else is in there.
FILES = FOLDER / "files"
_BANNER = "# Generated from libs/mesh/src/mesh/chart. Do not edit; run `make generate`.\n"
# The oldest Kubernetes with what is used without a word about it: a preStop hook that only sleeps.
_KUBERNETES = ">=1.32.0-0"
_CHART = f"""\
apiVersion: v2
name: backend
description: The platform's edge and services, each process an Envoy, of the table of services
type: application
version: {__version__}
appVersion: "{__version__}"
kubeVersion: "{_KUBERNETES}"
"""
# Of `settings` of a service: nothing but what its schema says of the value itself.
_KEYWORDS = (
    "type", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "enum", "const", "anyOf",
    "default", "description",
)  # fmt: skip

Schema = dict[str, object]


def files(settings: Settings) -> dict[str, str]:
    """Their texts, by path from the root of the repository.

    Args:
        settings: of each service, by variable, as JSON Schema; `required` and `notInProduction` are said of each as well.
    """
    found = {
        FOLDER / "Chart.yaml": _BANNER + _CHART,
        FOLDER / "values.yaml": _BANNER + _defaults(),
        FOLDER / "values.schema.json": json.dumps(schema(settings), indent=2, ensure_ascii=False) + "\n",
        FILES / "services.yaml": _BANNER + _services(settings),
    }
    for path, text in observability.files().items():
        relative = PurePosixPath(path).relative_to(observability.FOLDER)
        if relative.name == "rules.yml" or relative.parts[:2] == ("grafana", "dashboards"):
            found[FILES / relative.name] = text
    return {str(path): text for path, text in found.items()}


def schema(settings: Settings) -> Schema:
    """What the values may be: everything else is refused."""
    whole: Schema = Chart.model_json_schema(by_alias=True)
    definitions: Schema = _mapping(whole["$defs"])
    # Beside the definition of all, each row has its own, of which nothing has to be there and nothing has a default.
    definitions |= {
        f"Own{name}": _partial(definition) for name, definition in _workload_definitions(definitions).items()
    }
    own = _mapping(_mapping(definitions["OwnWorkload"])["properties"])
    of_services: Schema = {}
    for name in rows.NAMES:
        entry = row(name)
        properties = dict(own)
        required: list[str] = []
        if isinstance(entry, Service):
            properties["settings"] = found = _settings(entry, settings)
            required = ["settings"] if found.get("required") else []
        of_services[name] = {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            "required": required,
        }
    properties = _mapping(whole["properties"])
    properties["services"] = {
        "type": "object",
        "description": "What differs from the defaults, by row of the table; and the settings of each service (docs/configuration.md)",
        "additionalProperties": False,
        "properties": of_services,
        # Whose settings have to be there.
        "required": [name for name, found in of_services.items() if _mapping(found)["required"]],
    }
    if _mapping(properties["services"])["required"]:
        whole["required"] = [*_names(whole["required"]), "services"]
    # Helm's own: of the chart it is a part of.
    properties["global"] = {"type": "object"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_titles(whole)}


def _workload_definitions(definitions: Schema) -> Schema:
    return {"Workload": definitions["Workload"]} | {
        name: definitions[name] for name in ("Resources", "Quantities", "Autoscaling", "CustomMetric")
    }


def _partial(definition: object) -> Schema:
    """A definition of which any part may be there, the parts of its parts included."""
    text = json.dumps(definition)
    for name in ("Resources", "Quantities", "Autoscaling", "CustomMetric"):
        text = text.replace(f'"#/$defs/{name}"', f'"#/$defs/Own{name}"')
    found = _mapping(json.loads(text))
    found.pop("required", None)
    for each in _mapping(found["properties"]).values():
        _mapping(each).pop("default", None)
    return found


def _settings(service: Service, settings: Settings) -> Schema:
    mine = rows.of_values(service, settings[service.name])
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {keyword: setting[keyword] for keyword in _KEYWORDS if keyword in setting}
            for name, setting in mine.items()
        },
        "required": [name for name, setting in mine.items() if setting.get("required")],
    }


def _without_titles(found: Schema) -> Schema:
    """Titles repeat the names; Helm reads none."""
    return {
        key: _without_titles(_mapping(value)) if isinstance(value, dict) else value
        for key, value in found.items()
        if not (key == "title" and isinstance(value, str))
    }


def _mapping(found: object) -> Schema:
    if not isinstance(found, dict):
        raise TypeError(f"{found!r} is no mapping")
    return found


def _names(found: object) -> list[str]:
    return [str(name) for name in found] if isinstance(found, list) else []


def _services(settings: Settings) -> str:
    told = {"shutdownSeconds": rows.shutdown_seconds(), "rows": rows.told(settings)}
    return yaml.safe_dump(told, sort_keys=False, width=120)


def _defaults() -> str:
    lines = [
        "# What is not set here has to be: the commented names. values.schema.json refuses everything that it does not know.",
        "",
        *_of_model(Chart, None, ""),
        "# What differs from the defaults, by row of the table; settings: variables of docs/configuration.md.",
        "services:",
        *(f"  {name}: {{}}" for name in rows.NAMES),
    ]
    return "\n".join(lines) + "\n"


def _of_model(model: type[BaseModel], values: BaseModel | None, indent: str) -> Iterator[str]:
    """A model's fields with their values, or their defaults when there are none."""
    for name, field in model.model_fields.items():
        inner = field.annotation if isinstance(field.annotation, type) else None
        is_model = inner is not None and issubclass(inner, BaseModel)
        said = field.description or (str(inner.__doc__) if is_model and inner is not None else "")
        if said:
            yield f"{indent}# {' '.join(said.split())}"
        missing = values is None and field.is_required()
        value = None if missing else field.default if values is None else getattr(values, name)
        if is_model and inner is not None:
            yield f"{indent}{to_camel(name)}:"
            yield from _of_model(inner, value if isinstance(value, BaseModel) else None, indent + "  ")
        elif missing:
            yield f"{indent}# {to_camel(name)}: {_example(field)}"
        else:
            yield from (indent + line for line in _written(to_camel(name), value))


def _written(key: str, value: object) -> list[str]:
    if value in ({}, [], ""):
        return [f"{key}: {json.dumps(value)}"]
    return yaml.safe_dump({key: value}, sort_keys=False, width=120).splitlines()


def _example(field: FieldInfo) -> str:
    return str(field.examples[0]) if field.examples else ""
