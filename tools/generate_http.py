"""The public API's Python side, from its OpenAPI document: models, the table of operations, a typed client."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Spec = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")


def models(document: Path, spec: Spec) -> str:
    """Msgspec Structs by datamodel-code-generator; frozen, and closed where the schema says so."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "models.py"
        subprocess.run(
            [
                sys.executable, "-m", "datamodel_code_generator", "--input", str(document),
                "--input-file-type", "openapi", "--output", str(target),
                "--output-model-type", "msgspec.Struct", "--target-python-version", "3.11", "--disable-timestamp",
                "--use-annotated", "--enum-field-as-literal", "all", "--collapse-root-models",
                "--openapi-scopes", "schemas", "--formatters", "builtin", "--output-datetime-class", "datetime",
                "--custom-file-header", "#",
            ],
            check=True,
        )  # fmt: skip
        source = target.read_text(encoding="utf-8").lstrip("#\n")
    closed = {n for n, s in spec["components"]["schemas"].items() if s.get("additionalProperties") is False}

    def options(match: re.Match[str]) -> str:
        forbid = ", forbid_unknown_fields=True" if match[1] in closed else ""
        return f"class {match[1]}(Struct, frozen=True, kw_only=True{forbid}):"

    source = re.sub(r"^class (\w+)\(Struct\):", options, source, flags=re.MULTILINE)
    return re.sub(r"(pattern='[^'\n]*)\$'", r"\1\\\\Z'", source)


def python_pattern(pattern: str) -> str:
    """A contract's pattern for Python, where `$` would also match before a final line feed."""
    return pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operation."""

    name: str
    place: str
    required: bool
    schema: Spec

    @property
    def python_name(self) -> str:
        return self.name.lower().replace("-", "_")

    def python_type(self) -> str:
        """The msgspec type that validates it."""
        schema = self.schema
        if "enum" in schema:
            return f"Literal[{', '.join(map(repr, schema['enum']))}]"
        base = {"integer": "int", "boolean": "bool"}.get(schema["type"], "str")
        if schema.get("format") == "date-time":
            return "Annotated[datetime, Meta(tz=True)]"
        names = {"minimum": "ge", "maximum": "le", "minLength": "min_length", "maxLength": "max_length",
                 "pattern": "pattern"}  # fmt: skip
        rules = {names[key]: schema[key] for key in names if key in schema}
        if "pattern" in rules:
            rules["pattern"] = python_pattern(rules["pattern"])
        limits = ", ".join(f"{key}={value!r}" for key, value in rules.items())
        return f"Annotated[{base}, Meta({limits})]" if limits else base

    def plain_type(self) -> str:
        """The type as a caller of the client writes it."""
        if "enum" in self.schema:
            return self.python_type()
        if self.schema.get("format") == "date-time":
            return "datetime"
        return {"integer": "int", "boolean": "bool"}.get(self.schema["type"], "str")


@dataclass(frozen=True)
class Operation:
    """One operation of the document, references resolved."""

    id: str
    method: str
    path: str
    summary: str
    permission: str | None
    anonymous: bool
    parameters: list[Parameter]
    body: str | None
    success: int
    answer: str | None
    media_type: str
    timeout: float
    rate_limit: tuple[int, int, bool]
    operation_class: str

    @property
    def refuses_idempotency_key(self) -> bool:
        """Whether the key would promise what nobody keeps: the method is not idempotent, and no key is declared."""
        return self.method in ("POST", "PATCH") and not any(p.name == "Idempotency-Key" for p in self.of("header"))

    def of(self, place: str) -> list[Parameter]:
        """The parameters in one place."""
        return [parameter for parameter in self.parameters if parameter.place == place]

    @property
    def python_name(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.id).lower()

    @property
    def class_name(self) -> str:
        return self.id[0].upper() + self.id[1:]


class ContractError(ValueError):
    """The document lacks what code is generated from; a line for each operation and what it lacks."""


def incomplete(spec: Spec) -> list[str]:
    """Everything that operations lack or refer to in vain, all at once."""
    found = []
    for path, item in spec["paths"].items():
        for method in METHODS:
            if (raw := item.get(method)) is None:
                continue
            where = f"{raw.get('operationId', 'an operation without operationId')} ({method.upper()} {path})"
            if lacks := [key for key in ("operationId", "summary", "responses", "x-class") if key not in raw]:
                found.append(f"{where}: {', '.join(lacks)} missing")
            elif not any(code.startswith("2") for code in raw["responses"]):
                found.append(f"{where}: a response of success (2xx) missing")
            shared = item.get("parameters", [])
            found += [
                f"{where}: {reference} is referred to, and not there" for reference in dangling(spec, [shared, raw])
            ]
    return found


def dangling(spec: Spec, node: Any) -> list[str]:
    """The references to nothing below a node, through everything that it refers to; each once."""
    found, waiting, seen = [], [node], set[str]()
    while waiting:
        current = waiting.pop()
        if isinstance(current, list):
            waiting += current
        elif isinstance(current, dict):
            reference = current.get("$ref")
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                try:
                    waiting.append(_resolve(spec, current))
                except (KeyError, TypeError):
                    found.append(reference)
            waiting += current.values()
    return sorted(found)


def parse(spec: Spec) -> list[Operation]:
    """All operations in the document's order.

    Raises:
        ContractError: an operation is not complete.
    """
    if problems := incomplete(spec):
        raise ContractError("\n".join(problems))
    found = []
    for path, item in spec["paths"].items():
        for method in METHODS:
            if (raw := item.get(method)) is None:
                continue
            parameters = [_parameter(spec, p) for p in [*item.get("parameters", []), *raw.get("parameters", [])]]
            body = raw.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            success = min(int(code) for code in raw["responses"] if code.startswith("2"))
            content = raw["responses"][str(success)].get("content", {})
            answer = content.get("application/json", {}).get("schema")
            found.append(
                Operation(
                    id=raw["operationId"],
                    method=method.upper(),
                    path=path,
                    summary=raw["summary"],
                    permission=raw.get("x-permission"),
                    anonymous=raw.get("security") == [],
                    parameters=parameters,
                    body=_name(body),
                    success=success,
                    answer=_name(answer),
                    media_type=next(iter(content), "application/json"),
                    timeout=float(raw.get("x-timeout", spec["x-timeout"])),
                    rate_limit=_rate_limit(raw.get("x-rate-limit", spec["x-rate-limit"])),
                    operation_class=raw["x-class"],
                )
            )
    return found


def _parameter(spec: Spec, raw: Spec) -> Parameter:
    raw = _resolve(spec, raw)
    return Parameter(raw["name"], raw["in"], raw.get("required", False), _resolve(spec, raw["schema"]))


def _rate_limit(raw: Spec) -> tuple[int, int, bool]:
    return raw["requests"], raw["seconds"], {"globally": True, "locally": False}[raw["counted"]]


def _resolve(spec: Spec, node: Spec) -> Spec:
    if "$ref" not in node:
        return node
    target: Any = spec
    for key in node["$ref"].removeprefix("#/").split("/"):
        target = target[key]
    resolved: Spec = target
    return resolved


def _name(schema: Spec | None) -> str | None:
    return schema["$ref"].rsplit("/", 1)[1] if schema and "$ref" in schema else None


_OPERATIONS_HEADER = """from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, UNSET, UnsetType, field

from contract_runtime.operation import Operation, RateLimit
from {package} import models


"""


def operations(spec: Spec, package: str) -> str:
    """A module with a Struct for each operation's query and headers, and the table of operations.

    Args:
        spec: the OpenAPI document.
        package: where the module and its `models` are.
    """
    classes, rows = [], []
    for operation in parse(spec):
        row = [
            f"id={operation.id!r}", f"handler={operation.python_name!r}", f"method={operation.method!r}",
            f"path={operation.path!r}", f"permission={operation.permission!r}",
            f"anonymous={operation.anonymous}", f"success={operation.success}",
            f"media_type={operation.media_type!r}",
            f"timeout={operation.timeout!r}", f"rate_limit=RateLimit{operation.rate_limit!r}",
            f"operation_class={operation.operation_class!r}",
        ]  # fmt: skip
        if operation.refuses_idempotency_key:
            row.append("refuses_idempotency_key=True")
        if operation.answer:
            row.append(f"answer={operation.answer!r}")
        if operation.body:
            row.append(f"body=models.{operation.body}")
        for place, argument, suffix in (("query", "query", "Query"), ("header", "headers", "Headers")):
            if parameters := operation.of(place):
                name = operation.class_name + suffix
                classes.append(_parameter_struct(name, parameters))
                row.append(f"{argument}={name}")
        rows.append(f"    Operation({', '.join(row)}),\n")
    return (
        _OPERATIONS_HEADER.format(package=package)
        + "\n\n".join(classes)
        + "\n\nOPERATIONS: tuple[Operation, ...] = (\n"
        + "".join(rows)
        + ")\n"
    )


def _parameter_struct(name: str, parameters: list[Parameter]) -> str:
    lines = [f"class {name}(Struct, frozen=True, kw_only=True):"]
    for parameter in parameters:
        python_type, wire = parameter.python_type(), parameter.name.lower()
        renamed = f"name={wire!r}" if wire != parameter.python_name else ""
        if parameter.required:
            default = f" = field({renamed})" if renamed else ""
        elif "default" in parameter.schema:
            default = f" = field({', '.join(filter(None, ['default=' + repr(parameter.schema['default']), renamed]))})"
        else:
            python_type += " | UnsetType"
            default = f" = field({', '.join(filter(None, ['default=UNSET', renamed]))})"
        lines.append(f"    {parameter.python_name}: {python_type}{default}")
    return "\n".join(lines) + "\n"


_CLIENT_HEADER = '''from __future__ import annotations

from datetime import datetime
from typing import Literal

from contract_runtime.http_client import Answer, HttpClient
from {package} import models


class BackendClient(HttpClient):
    """The public API."""
'''


def client(spec: Spec, package: str) -> str:
    """A class with an async method for each operation; for the arguments see `operations`."""
    return _CLIENT_HEADER.format(package=package) + "".join(_client_method(operation) for operation in parse(spec))


def _client_method(operation: Operation) -> str:
    answer = f"models.{operation.answer}" if operation.answer else ("None" if operation.success == 204 else "str")
    arguments = ["self", *(f"{p.python_name}: str" for p in operation.of("path"))]
    if operation.body:
        arguments.append(f"body: models.{operation.body}")
    keywords = [*operation.of("query"), *operation.of("header")]
    if keywords:
        arguments.append("*")
    arguments += [
        f"{p.python_name}: {p.plain_type()}" + ("" if p.required else " | None = None")
        for p in sorted(keywords, key=lambda p: not p.required)
    ]
    path = re.sub(r"\{(\w+)\}", lambda m: "{" + m[1].lower() + "}", operation.path)
    sent = [repr(operation.method), f'f"{path}"' if "{" in path else f'"{path}"']
    sent.append("type(None)" if answer == "None" else answer)
    if operation.body:
        sent.append("body=body")
    for place, keyword in (("query", "query"), ("header", "headers")):
        if parameters := operation.of(place):
            items = ", ".join(f"{p.name!r}: {p.python_name}" for p in parameters)
            sent.append(f"{keyword}={{{items}}}")
    return (
        f"\n    async def {operation.python_name}({', '.join(arguments)}) -> Answer[{answer}]:\n"
        f'        """{operation.summary}."""\n'
        f"        return await self.send({', '.join(sent)})\n"
    )
