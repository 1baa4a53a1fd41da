"""Every answer of the public API that a test sees is one that the contract knows: status, headers, type and body."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
import yaml
from devstack.layout import ROOT

SPEC: dict[str, Any] = yaml.safe_load((ROOT / "api/openapi/bff.v1.yaml").read_text(encoding="utf-8"))
# What the edge says about a request as such, before it is one for an operation.
_OF_THE_EDGE = {408, 426, 431}


def check_of(base_url: str) -> Callable[[httpx.Response], Awaitable[None]]:
    """An event hook for `httpx.AsyncClient`: raises AssertionError for an answer of this API that is not in the contract.

    What the same client hears from elsewhere (a probe, metrics) has other contracts.
    """
    api = httpx.URL(base_url)

    async def check(response: httpx.Response) -> None:
        if (response.url.host, response.url.port) == (api.host, api.port):
            await response.aread()
            conform(response)

    return check


def conform(response: httpx.Response) -> None:
    """Check one answer, whose body has been read.

    Raises:
        AssertionError: the answer is not in the contract; says which part.
    """
    request, status = response.request, response.status_code
    where = f"{request.method} {request.url.path}: {status}"
    # A browser's question before a request is the edge's to answer (CORS).
    if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
        return
    # To HTTPS, where that is the policy: the edge's, whatever was asked for.
    if status == 301 and response.headers["location"].startswith("https://"):
        return
    declared = _declared(request.method, request.url.path)
    # Two credentials are nobody's, also where none are looked at.
    doubled = status == 401 and len(request.headers.get_list("authorization")) > 1
    if declared is None or (str(status) not in declared and (doubled or status in _OF_THE_EDGE)):
        assert status >= 400, f"{where}: a success outside of the contract"
        _check_body(response, "application/problem+json", "Problem", where)
        return
    assert str(status) in declared, f"{where}: not declared: {response.text[:500]}"
    answer = _resolved(declared[str(status)])
    for name, header in answer.get("headers", {}).items():
        if name in response.headers:
            _check(_header(name, response.headers[name], _resolved(header)["schema"]), f"{where}: {name}")
    content = answer.get("content")
    if content is None:
        assert not response.content, f"{where}: a body where there is none"
        return
    media_type, body = next(iter(content.items()))
    _check_body(response, media_type, body.get("schema", {}).get("$ref", "").rpartition("/")[2], where)


def _check_body(response: httpx.Response, media_type: str, schema: str, where: str) -> None:
    found = response.headers.get("content-type", "").partition(";")[0]
    assert found == media_type, f"{where}: {found} instead of {media_type}: {response.text[:200]}"
    if schema and response.request.method != "HEAD":
        value = response.json()
        _check((_validator(schema), value), where)
        if schema == "Problem":
            assert value["status"] == response.status_code, f"{where}: the problem says {value['status']}"


def _check(pair: tuple[jsonschema_rs.Draft202012Validator, Any], where: str) -> None:
    validator, value = pair
    found = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)]
    assert not found, f"{where}: {found[:3]}"


def _header(name: str, text: str, schema: dict[str, Any]) -> tuple[jsonschema_rs.Draft202012Validator, Any]:
    value = int(text) if schema["type"] == "integer" and text.isdecimal() else text
    return jsonschema_rs.Draft202012Validator(schema), value


@cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    components = {"schemas": SPEC["components"]["schemas"]}
    document = {"$ref": f"#/components/schemas/{name}", "components": components}
    return jsonschema_rs.Draft202012Validator(document, validate_formats=True)


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = SPEC
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


@cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), item) for path, item in SPEC["paths"].items()]


def _declared(method: str, path: str) -> dict[str, Any] | None:
    """The declared answers of an operation; None for what is no operation."""
    for pattern, item in _patterns():
        if pattern.fullmatch(path):
            operation = item.get("get" if method == "HEAD" else method.lower())
            return operation["responses"] if isinstance(operation, dict) else None
    return None
