"""Reading a request by its contract: body, query, headers, cookies, and what the caller accepts.

Whatever is read here is a client's: each reading takes a time that grows with the text's length and no faster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec
from contract_runtime.operation import Operation
from msgspec import Struct, inspect

from chassis.errors import FieldViolation, Place, ServiceError
from chassis.http.conformance import Conformance, fields_of, is_date_time
from chassis.http.request import Request

S = TypeVar("S", bound=Struct)

IDEMPOTENCY_KEY = "idempotency-key"
# RFC 9110, sections 13.1.1 and 13.1.2. (By time nothing is compared here: no answer has a Last-Modified.)
CONDITIONS = ("if-match", "if-none-match")
# No number of a contract is longer; Python's int() takes a time that grows faster than the count of digits.
_INTEGER = re.compile(r"-?[0-9]{1,18}")
# RFC 9110, section 12.4.2.
_WEIGHT = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


async def read_text(request: Request, limit: int) -> bytearray:
    """The body of a JSON request, of at most `limit` bytes.

    Raises:
        ServiceError: UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_CONTENT_CODING, TOO_LARGE, or MALFORMED_REQUEST (cut off).
    """
    media_type = (request.lines(b"content-type") or [""])[-1].lower()
    coding = "".join(c.strip().lower().removeprefix("identity") for c in request.lines(b"content-encoding"))
    declared = request.header(b"content-length") or ""
    if media_type != "application/json":
        media_type, _, parameters = media_type.partition(";")
        if media_type.strip() != "application/json":
            raise ServiceError("UNSUPPORTED_MEDIA_TYPE")
        if "charset" in parameters and "utf-8" not in parameters:
            raise ServiceError("UNSUPPORTED_MEDIA_TYPE", "JSON is UTF-8 (RFC 8259, section 8.1)")
    if coding:
        raise ServiceError("UNSUPPORTED_CONTENT_CODING")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise ServiceError("TOO_LARGE", f"at most {limit} bytes")
    body, more = bytearray(), True
    while more:
        event = await request.receive()
        if event["type"] == "http.disconnect":
            raise ServiceError("MALFORMED_REQUEST", "the body ended early")
        body += event.get("body", b"")
        if len(body) > limit:
            raise ServiceError("TOO_LARGE", f"at most {limit} bytes")
        more = event.get("more_body", False)
    return body


class _Parameters(Generic[S]):
    """Makes `model` of named texts; compiled once for each operation."""

    def __init__(self, model: type[S], place: Place, shown: Callable[[str], str]) -> None:
        self._model = model
        self._place = place
        self._shown = shown
        self._conformance = Conformance(model)
        self._readings = {f.encode_name: read for f in fields_of(model) if (read := _reading(f.type))}

    def of(self, texts: Mapping[str, str]) -> S:
        """The model.

        Raises:
            ServiceError: INVALID_ARGUMENT, whose violations name the parameters.
        """
        readings = self._readings
        values = {name: readings[name](text) if name in readings else text for name, text in texts.items()}
        try:
            return msgspec.convert(values, self._model)
        except msgspec.ValidationError:
            _, violations = self._conformance.of(values)
            # A pointer to a member of the model is a slash and its name, which is the contract's.
            named = (FieldViolation(self._shown(v.where[1:]), v.detail, self._place) for v in violations)
            raise ServiceError("INVALID_ARGUMENT", violations=tuple(named)) from None


def _reading(rule: inspect.Type) -> Callable[[str], object] | None:
    """What makes a value of a text, for what is no text itself; what it cannot read, the model refuses."""
    if isinstance(rule, inspect.Metadata):
        return _reading(rule.type)
    if isinstance(rule, inspect.IntType):
        return lambda text: int(text) if _INTEGER.fullmatch(text) else text
    if isinstance(rule, inspect.BoolType):
        return lambda text: {"true": True, "false": False}.get(text, text)
    if isinstance(rule, inspect.DateTimeType):
        # msgspec alone would take a number for a time, and a space for the T.
        return lambda text: text if is_date_time(text) else None
    return None


class QueryReader(Generic[S]):
    """Reads the query; unknown parameters are ignored, of repeated ones the last counts."""

    def __init__(self, model: type[S]) -> None:
        self._parameters = _Parameters(model, "parameter", str)

    def read(self, request: Request) -> S:
        """The query as the model; raises ServiceError INVALID_ARGUMENT."""
        return self._parameters.of(request.query())


class HeaderReader(Generic[S]):
    """Reads the headers that a model names; lines of one name are one list (RFC 9110, section 5.3)."""

    def __init__(self, model: type[S]) -> None:
        self._parameters = _Parameters(model, "header", header_name)
        self._names = [(name.encode(), name) for name in model.__struct_encode_fields__]
        self._needs_key = any(f.required and f.encode_name == IDEMPOTENCY_KEY for f in fields_of(model))
        # Most requests have none of them.
        self._without = None if any(f.required for f in fields_of(model)) else model()

    def read(self, request: Request) -> S:
        """The headers as the model; raises ServiceError INVALID_ARGUMENT, or IDEMPOTENCY_KEY_REQUIRED."""
        values: dict[str, str] = {}
        for raw, name in self._names:
            if (text := request.header(raw)) is not None:
                values[name] = text
        if not values and self._without is not None:
            return self._without
        if self._needs_key and IDEMPOTENCY_KEY not in values:
            # draft-ietf-httpapi-idempotency-key-header, section 2.7.
            raise header_problem("IDEMPOTENCY_KEY_REQUIRED", IDEMPOTENCY_KEY, "is required")
        return self._parameters.of(values)


def refused_headers(operation: Operation) -> tuple[tuple[bytes, str], ...]:
    """What an operation must not be sent, and the reason of its refusal: taken in silence, it would promise what is not kept."""
    taken = operation.headers.__struct_encode_fields__ if operation.headers else ()
    refused = [(name.encode(), "CONDITION_REFUSED") for name in CONDITIONS if name not in taken]
    if operation.refuses_idempotency_key:
        refused.append((IDEMPOTENCY_KEY.encode(), "IDEMPOTENCY_KEY_REFUSED"))
    return tuple(refused)


def header_problem(reason: str, name: str, detail: str) -> ServiceError:
    """What is wrong with a header that is there, or is not."""
    return ServiceError(reason, violations=(FieldViolation(header_name(name), detail, "header"),))


def header_name(name: str) -> str:
    """A header's name as people write it: `if-match` is `If-Match`."""
    return "-".join(part.capitalize() for part in name.split("-"))


def read_cookies(request: Request, name: str) -> list[str]:
    """The values of all cookies of a name as they stand (RFC 6265, section 5.4).

    More than one are there when another host of our site has set its own: nothing says which is ours.
    Starlette's own reading takes off quotes with the standard library's, whose time is quadratic (CVE-2024-7592).
    """
    pairs = (pair.partition("=") for header in request.lines(b"cookie") for pair in header.split(";"))
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def accepts(request: Request, media_type: str) -> bool:
    """Whether the Accept header allows `media_type` (RFC 9110, section 12.5.1); absent allows everything."""
    header = request.header(b"accept")
    if not header or header == "*/*":
        return True
    kind = media_type.partition("/")[0]
    specificities = {media_type: 2, f"{kind}/*": 1, "*/*": 0}
    best: tuple[int, float] = (-1, 0.0)
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        specificity = specificities.get(name, -1)
        if specificity < 0:
            continue
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                quality = float(parameter[2:]) if _WEIGHT.fullmatch(parameter[2:]) else 0.0
        best = max(best, (specificity, quality))
    return best[0] >= 0 and best[1] > 0
