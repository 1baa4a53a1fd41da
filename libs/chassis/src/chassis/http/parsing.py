"""Reading a request by its contract: body, query, headers, and what the caller accepts."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import ClientDisconnect, Request

from chassis.errors import FieldViolation, ServiceError

S = TypeVar("S", bound=Struct)

# msgspec ends a message with the path of the offender: "… - at `$.items[0].quantity`".
_LOCATION = re.compile(r"(.*) - at `(key in )?\$(.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")
_FIELD = re.compile(r"`([^`]+)`")


async def read_body(request: Request, model: type[S], limit: int) -> S:
    """The JSON body as `model`.

    Raises:
        ServiceError: UNSUPPORTED_MEDIA_TYPE, TOO_LARGE, MALFORMED_REQUEST (not JSON) or INVALID_ARGUMENT (not the
            model), the last with a JSON pointer.
    """
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    if media_type.strip().lower() != "application/json":
        raise ServiceError("UNSUPPORTED_MEDIA_TYPE")
    if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        raise ServiceError("UNSUPPORTED_MEDIA_TYPE", "JSON is UTF-8 (RFC 8259, section 8.1)")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise ServiceError("TOO_LARGE", f"at most {limit} bytes")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise ServiceError("TOO_LARGE", f"at most {limit} bytes")
    except ClientDisconnect as error:
        raise ServiceError("MALFORMED_REQUEST", "the body ended early") from error
    try:
        return msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        # The decoder stops at the first offence; what follows it may not even be JSON.
        _require_json(body)
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        _require_json(body)
        raise


def _require_json(body: bytearray) -> None:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ServiceError("MALFORMED_REQUEST", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise ServiceError("MALFORMED_REQUEST", "the body is nested too deeply") from None


def read_query(request: Request, model: type[S]) -> S:
    """The query parameters as `model`; unknown ones are ignored, of repeated ones the last counts.

    Raises:
        ServiceError: INVALID_ARGUMENT, whose pointer is the parameter's name.
    """
    return _convert(dict(request.query_params), model)


def read_headers(request: Request, model: type[S]) -> S:
    """The headers that `model` names.

    Raises:
        ServiceError: INVALID_ARGUMENT, whose pointer is the header's name.
    """
    names = model.__struct_encode_fields__
    return _convert({name: request.headers[name] for name in names if name in request.headers}, model)


def _convert(values: dict[str, Any], model: type[S]) -> S:
    try:
        return msgspec.convert(values, model, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(error) from None


def invalid(error: msgspec.ValidationError) -> ServiceError:
    """A decoder's complaint as INVALID_ARGUMENT with a JSON pointer (RFC 6901)."""
    message, path = str(error), ""
    if match := _LOCATION.match(message):
        message, path = match[1], match[3]
    pointer = "".join(f"/{_escape(step[1] or step[2])}" for step in _STEP.finditer(path))
    # A missing or unknown field is reported at the object that should or should not have it.
    if message.startswith("Object ") and (name := _FIELD.search(message)):
        pointer += f"/{_escape(name[1])}"
    return ServiceError("INVALID_ARGUMENT", violations=(FieldViolation(pointer, message),))


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def accepts(request: Request, media_type: str) -> bool:
    """Whether the Accept header allows `media_type` (RFC 9110, section 12.5.1); absent allows everything."""
    header = request.headers.get("accept")
    if not header or header == "*/*":
        return True
    kind = media_type.partition("/")[0]
    best: tuple[int, float] = (-1, 0.0)
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        specificity = {media_type: 2, f"{kind}/*": 1, "*/*": 0}.get(name, -1)
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        best = max(best, (specificity, quality))
    return best[0] >= 0 and best[1] > 0
