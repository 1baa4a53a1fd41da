"""What handlers answer, and the headers that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from msgspec import Struct, UnsetType
from starlette.responses import Response

from chassis.errors import ServiceError

_encode = msgspec.json.Encoder().encode


def json_answer(
    model: Struct, *, status: int = 200, version: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON body; with a version, its ETag."""
    response = Response(_encode(model), status, headers=headers, media_type="application/json")
    if version is not None:
        response.headers["etag"] = etag(version)
    return response


def empty_answer(headers: Mapping[str, str] | None = None) -> Response:
    """204."""
    return Response(status_code=204, headers=headers)


def etag(version: int) -> str:
    """A strong entity tag (RFC 9110, section 8.8.3): a resource's version is bumped by every change."""
    return f'"{version}"'


def is_current(if_none_match: str | UnsetType, version: int) -> bool:
    """Whether If-None-Match names this version (RFC 9110, section 13.1.2; weak comparison)."""
    if isinstance(if_none_match, UnsetType):
        return False
    candidates = (candidate.strip().removeprefix("W/") for candidate in if_none_match.split(","))
    return any(candidate in ("*", etag(version)) for candidate in candidates)


def not_modified(version: int) -> Response:
    """304."""
    return Response(status_code=304, headers={"etag": etag(version)})


def expected_version(if_match: str | UnsetType) -> int | None:
    """The version If-Match names; None when any will do (no header, or `*`)."""
    if isinstance(if_match, UnsetType) or if_match == "*":
        return None
    return int(if_match.strip().strip('"'))


def problem_answer(error: ServiceError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """An RFC 9457 problem with the headers its status asks for."""
    status = error.kind.http_status
    sent = dict(headers or {})
    if status == 401:
        sent["www-authenticate"] = 'Bearer realm="backend"'
    elif error.reason == "UNSUPPORTED_CONTENT_CODING":
        # RFC 9110, section 15.5.16: what would have been understood.
        sent["accept-encoding"] = "identity"
    elif error.reason == "UNSUPPORTED_MEDIA_TYPE":
        sent["accept"] = "application/json"
    retry_after = error.kind.retry_after if error.retry_after is None else error.retry_after
    if retry_after is not None:
        sent["retry-after"] = str(max(1, math.ceil(retry_after)))
    if error.facts.get("idempotency_replayed"):
        sent["idempotency-replayed"] = "true"
    body = msgspec.json.encode(error.to_problem(request_id))
    return Response(body, status, headers=sent, media_type="application/problem+json")
