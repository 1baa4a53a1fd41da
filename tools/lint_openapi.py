"""Lints the OpenAPI contract: valid 3.1, the house rules, and examples that validate against their schemas."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.common.v1.options_pb2 import OperationClass
from generate import GenerationError, read_yaml
from generate_http import incomplete
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

ROOT = Path(__file__).resolve().parent.parent
METHODS = {"get", "post", "put", "patch", "delete"}
# What every operation can answer, whatever it does.
# A schema's message may repeat all of what it does not like.
_LONGEST_MESSAGE = 500
ALWAYS = {"400", "405", "406", "429", "503"}


def problems(spec: dict[str, Any]) -> Iterator[str]:
    """Everything that breaks a house rule."""
    permissions = read_yaml(ROOT / "api/permissions.yaml")["roles"]
    granted = {permission for names in permissions.values() for permission in names}
    classes = operation_classes()
    seen: set[str] = set()
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            if method not in METHODS:
                continue
            where = f"{method.upper()} {path}"
            identifier = operation.get("operationId")
            if not identifier or identifier in seen:
                yield f"{where}: operationId is missing or used twice"
            seen.add(identifier)
            permission, anonymous = operation.get("x-permission"), operation.get("security") == []
            if (permission is None) == (not anonymous):
                yield f"{where}: needs exactly one of x-permission and security: []"
            if permission is not None and permission not in granted:
                yield f"{where}: no role grants {permission}"
            if operation.get("x-class") not in classes:
                yield f"{where}: needs an x-class, one of {', '.join(sorted(classes))}"
            expected = ALWAYS | ({"401", "403"} if permission else set())
            expected |= {"413", "415", "422"} if "requestBody" in operation else set()
            if any("Match" in p["$ref"] or "Cursor" in p["$ref"] for p in operation.get("parameters", [])):
                expected |= {"422"}
            for status in sorted(expected - operation["responses"].keys()):
                yield f"{where}: does not declare {status}"
            yield from repetition(spec, method, operation, where)
            if not operation.get("summary") or not operation.get("tags"):
                yield f"{where}: summary and tags are required"
    yield from unbounded(spec)
    yield from open_bodies(spec)
    yield from examples(spec)


def operation_classes() -> set[str]:
    """As the RPCs' contract names them."""
    return {name.removeprefix("OPERATION_CLASS_").lower() for name, number in OperationClass.items() if number}


def repetition(spec: dict[str, Any], method: str, operation: dict[str, Any], where: str) -> Iterator[str]:
    """A method that is not idempotent (RFC 9110, section 9.2.2) needs the key, or refuses it: never takes it in silence."""
    references = [p["$ref"].rsplit("/", 1)[1] for p in operation.get("parameters", []) if "$ref" in p]
    keyed = "IdempotencyKey" in references
    if keyed and method not in ("post", "patch"):
        yield f"{where}: takes an idempotency key, but is idempotent by its method"
    if keyed and not spec["components"]["parameters"]["IdempotencyKey"].get("required"):
        yield f"{where}: an idempotency key that may be left out promises nothing"


def open_bodies(spec: dict[str, Any]) -> Iterator[str]:
    """Objects of request bodies, at any depth, that take members which the contract does not know."""
    schemas = spec["components"]["schemas"]
    operations = [o for item in spec["paths"].values() for m, o in item.items() if m in METHODS]
    waiting = [c["schema"] for o in operations for c in o.get("requestBody", {}).get("content", {}).values()]
    seen: set[str] = set()
    while waiting:
        schema = waiting.pop()
        name = schema.get("$ref", "").rsplit("/", 1)[-1]
        if name in seen:
            continue
        if name:
            seen.add(name)
            schema = schemas[name]
            if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
                yield f"{name}: is part of a request, and must have additionalProperties: false"
        waiting += [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]


def unbounded(spec: dict[str, Any]) -> Iterator[str]:
    """Request fields without a bound: a string without maxLength, an integer without minimum and maximum."""
    for name, schema in spec["components"]["schemas"].items():
        if schema.get("additionalProperties") is not False:
            continue
        for field, raw in schema["properties"].items():
            rule = raw
            if "$ref" in raw:
                rule = spec["components"]["schemas"][raw["$ref"].rsplit("/", 1)[1]]
            bounded = {
                "string": "maxLength" in rule or "enum" in rule or "pattern" in rule,
                "integer": "minimum" in rule and "maximum" in rule,
                "array": "maxItems" in rule,
            }
            if not bounded.get(rule.get("type", ""), True):
                yield f"{name}.{field}: has no bound"


def examples(spec: dict[str, Any]) -> Iterator[str]:
    """Examples that their own schema does not accept."""
    schemas = spec["components"]["schemas"]

    def validator(schema: dict[str, Any]) -> Draft202012Validator:
        return Draft202012Validator({**schema, "components": {"schemas": schemas}})

    for name, schema in schemas.items():
        if "example" in schema:
            for error in validator(schema).iter_errors(schema["example"]):
                yield f"schema {name}: example: {error.message}"
    for name, response in spec["components"]["responses"].items():
        for media in response.get("content", {}).values():
            if "example" not in media:
                yield f"response {name}: has no example"
                continue
            for error in validator(media["schema"]).iter_errors(media["example"]):
                yield f"response {name}: example: {error.message}"
    for name, parameter in spec["components"]["parameters"].items():
        if "example" in parameter:
            for error in validator(parameter["schema"]).iter_errors(parameter["example"]):
                yield f"parameter {name}: example: {error.message}"


def invalid(spec: dict[str, Any]) -> list[str]:
    """Where it is no OpenAPI 3.1, in a line."""
    try:
        validate(spec)
    except OpenAPIValidationError as error:
        return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:_LONGEST_MESSAGE]}"]
    return []


def main() -> None:
    """Print every problem; exit 1 when there is one."""
    try:
        spec = read_yaml(ROOT / "api/openapi/bff.v1.yaml")
    except GenerationError as error:
        sys.exit(str(error))
    # The validator would answer a reference to nothing with a trace as long as the contract.
    found = incomplete(spec) or invalid(spec) or list(problems(spec))
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
