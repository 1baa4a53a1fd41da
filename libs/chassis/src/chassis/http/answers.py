"""What handlers answer, and the headers that follow from it."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct, UnsetType
from starlette.responses import Response

from chassis.errors import ServiceError

T = TypeVar("T")

# RFC 9110, section 8.8.3; a comma may be within a tag.
_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# The canonical spelling of what `etag` writes.
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_CHALLENGE = 'Bearer realm="backend"'
_encode = msgspec.json.Encoder().encode


class _Prepared(Response):
    """Starlette's response, whose own way of making its headers takes twice as long (ADR 0026)."""

    def __init__(self, body: bytes, status: int, raw_headers: list[tuple[bytes, bytes]]) -> None:
        self.body = body
        self.status_code = status
        self.raw_headers = raw_headers
        self.background = None


def json_answer(
    model: Struct, *, status: int = 200, version: int | str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON body; with a version, its ETag."""
    body = _encode(model)
    lines = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if version is not None:
        lines.append((b"etag", etag(version).encode()))
    if headers:
        lines += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return _Prepared(body, status, lines)


def empty_answer(headers: Mapping[str, str] | None = None) -> Response:
    """204."""
    return Response(status_code=204, headers=headers)


def etag(version: int | str) -> str:
    """A strong entity tag (RFC 9110, section 8.8.3): a resource's version is bumped by every change."""
    return f'"{version}"'


def is_current(if_none_match: str | UnsetType, version: int | str) -> bool:
    """Whether If-None-Match names this version (RFC 9110, section 13.1.2; weak comparison)."""
    if isinstance(if_none_match, UnsetType):
        return False
    return if_none_match.strip() == "*" or any(tag == etag(version) for _, tag in _TAG.findall(if_none_match))


def not_modified(version: int | str) -> Response:
    """304."""
    return Response(status_code=304, headers={"etag": etag(version)})


def expected_versions(if_match: str | UnsetType) -> tuple[int | None, ...]:
    """The versions that If-Match allows, newest first; (None,) when any will do (no header, or `*`).

    The comparison is strong (RFC 9110, section 13.1.1): a weak tag and one that is none of ours allow no version, which
    is 0, for versions start at 1. Whether there is such a resource is asked first (section 13.2.1), by the service.
    """
    if isinstance(if_match, UnsetType) or if_match.strip() == "*":
        return (None,)
    versions = {
        int(number) for weak, tag in _TAG.findall(if_match) if not weak and _VERSION.fullmatch(number := tag[1:-1])
    }
    return tuple(sorted(versions, reverse=True)) or (0,)


class Conditional(Protocol):
    """A request for a change, which is made to the expected version only."""

    expected_version: int


async def matching(if_match: str | UnsetType, request: Conditional, call: Callable[[], Awaitable[T]]) -> T:
    """Make a change only to a version that If-Match allows: `request.expected_version` says which, to `call`.

    A list of versions is tried one by one, each atomically where the change is made.

    Raises:
        ServiceError: STALE_VERSION when it is none of them, and whatever `call` raises.
    """
    versions = [version for version in expected_versions(if_match) if version is not None]
    for version in versions[:-1]:
        request.expected_version = version
        try:
            return await call()
        except ServiceError as error:
            if error.reason != "STALE_VERSION":
                raise
    if versions:
        request.expected_version = versions[-1]
    return await call()


def finish(response: Response, request_id: str, *, cacheable: bool) -> None:
    """The headers that every answer has: the request's id, and that nobody keeps it unless anybody may."""
    lines = response.raw_headers
    if not cacheable:
        lines = [line for line in lines if line[0] != b"cache-control"]
        lines.append((b"cache-control", b"no-store"))
    lines.append((b"x-request-id", request_id.encode()))
    response.raw_headers = lines


def problem_answer(
    error: ServiceError, request_id: str, headers: Mapping[str, str] | None = None, *, has_credentials: bool = False
) -> Response:
    """An RFC 9457 problem with the headers its status asks for.

    Args:
        error: the problem.
        request_id: of the request.
        headers: further ones.
        has_credentials: whether the request has an Authorization header.
    """
    status = error.kind.http_status
    # What is wrong now may not be next time; a cache would keep some of these without being told to (RFC 9111, 4.2.2).
    sent = {**(headers or {}), "cache-control": "no-store"}
    if status == 401:
        # Expired, revoked or never one; without any there is no error to name (RFC 6750, 3.1). What else is 401, such as a
        # wrong password, is no error of a token's.
        is_of_token = has_credentials and error.reason == "UNAUTHENTICATED"
        sent["www-authenticate"] = f'{_CHALLENGE}, error="invalid_token"' if is_of_token else _CHALLENGE
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
