"""JSON bodies: msgspec where it says yes, and a second, slower reading where more than a yes is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Generic, NoReturn, TypeVar

import msgspec
from msgspec import NODEFAULT, UNSET, Struct, inspect

from chassis.errors import ServiceError
from chassis.http.conformance import Conformance

S = TypeVar("S", bound=Struct)

# More digits than any number of a contract has; Python's int() takes a time that grows faster than their count.
_MOST_DIGITS = 40
_Count = Callable[[object], int]


class BodyReader(Generic[S]):
    """Makes `model` of a JSON text (RFC 8259); compiled once for each operation.

    The first reading is msgspec's. It keeps the last of members with one name, which RFC 7493 (section 2.3) forbids:
    two readers of one body may then see two different ones. Finding them needs no second reading of an ordinary body,
    because every member has a colon: a text with no more colons than the model has members has no member twice.
    """

    def __init__(self, model: type[S]) -> None:
        self._decode = msgspec.json.Decoder(model).decode
        self._conformance = Conformance(model)
        info = inspect.type_info(model)
        self._members = _members_of(info)
        # msgspec reads more spellings of a date-time than RFC 3339 has.
        self._always_walk = _has_date_time(info)

    def read(self, text: bytes | bytearray) -> S:
        """The body as the model.

        Raises:
            ServiceError: MALFORMED_REQUEST (not JSON, or a member twice) or INVALID_ARGUMENT, with every violation.
        """
        try:
            body = self._decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._walked(text)
        if self._always_walk:
            return self._walked(text)
        if text.count(b":") != self._members(body):
            # A colon within a string, a member left to its default, or one twice.
            parse(text)
        return body

    def _walked(self, text: bytes | bytearray) -> S:
        body, violations = self._conformance.of(parse(text))
        if body is None:
            raise ServiceError("INVALID_ARGUMENT", violations=violations)
        return body


def parse(text: bytes | bytearray) -> object:
    """The value of a JSON text; a number too large to be held is an infinity, one that is no integer a Decimal.

    Raises:
        ServiceError: MALFORMED_REQUEST.
    """
    try:
        return _DECODER.decode(text.decode())
    except RecursionError:
        raise ServiceError("MALFORMED_REQUEST", "the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ServiceError("MALFORMED_REQUEST", f"the body is not JSON: {error.msg} at {error.pos}") from None
    except UnicodeDecodeError as error:
        raise ServiceError("MALFORMED_REQUEST", f"the body is not UTF-8 at {error.start}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ServiceError("MALFORMED_REQUEST", "an object has a member twice")
    return members


def _bounded_int(digits: str) -> int | float:
    if len(digits) <= _MOST_DIGITS:
        return int(digits)
    return -math.inf if digits[0] == "-" else math.inf


def _exact(text: str) -> int | float | Decimal:
    """A number with a fraction or an exponent: an int when it is one, exactly, and nothing rounded to one.

    As a float, `1.00000000000000000001` would be 1.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        # The exponent has more than eighteen digits. The number may be zero; it is none that anybody means.
        return math.nan
    if number.adjusted() >= _MOST_DIGITS:
        return -math.inf if number.is_signed() else math.inf
    return int(number) if number == number.to_integral_value() else number


def _no_number(name: str) -> NoReturn:
    raise ServiceError("MALFORMED_REQUEST", f"the body is not JSON: {name} is no number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_bounded_int, parse_float=_exact, parse_constant=_no_number
)


def _members_of(rule: inspect.Type) -> _Count:
    """Counts the members that a value must have had in its text; those left to a default are not counted."""
    if isinstance(rule, inspect.Metadata):
        return _members_of(rule.type)
    if isinstance(rule, inspect.UnionType):
        return _members_of_one_of(rule)
    if isinstance(rule, inspect.ListType):
        return _members_of_items(rule)
    if isinstance(rule, inspect.StructType):
        return _members_of_object(rule)
    return _none


def _none(_: object) -> int:
    return 0


def _members_of_one_of(rule: inspect.UnionType) -> _Count:
    counts = [count for kind in rule.types if (count := _members_of(kind)) is not _none]
    if not counts:
        return _none
    (inner,) = counts
    return lambda value: 0 if value is None else inner(value)


def _members_of_items(rule: inspect.ListType) -> _Count:
    item = _members_of(rule.item_type)
    if item is _none:
        return _none
    if (fixed := _fixed(rule.item_type)) is not None:
        return lambda value: fixed * len(value) if isinstance(value, list) else 0
    return lambda value: sum(map(item, value)) if isinstance(value, list) else 0


def _members_of_object(rule: inspect.StructType) -> _Count:
    if (fixed := _fixed(rule)) is not None:
        return lambda _: fixed
    required = sum(member.required for member in rule.fields)
    optional = [(member.name, _default(member)) for member in rule.fields if not member.required]
    counts = [(member.name, _members_of(member.type)) for member in rule.fields]
    nested = [(name, inner) for name, inner in counts if inner is not _none]

    def count(value: object) -> int:
        found = required
        for name, default in optional:
            found += getattr(value, name) != default
        for name, inner in nested:
            if (within := getattr(value, name)) is not UNSET:
                found += inner(within)
        return found

    return count


def _default(member: inspect.Field) -> object:
    if member.default_factory is not NODEFAULT:
        return member.default_factory()
    # A member without a default of the contract's is UNSET when it is absent.
    return UNSET if member.default is NODEFAULT else member.default


def _fixed(rule: inspect.Type) -> int | None:
    """How many members each value has, where that is always the same."""
    if isinstance(rule, inspect.Metadata):
        return _fixed(rule.type)
    if not isinstance(rule, inspect.StructType):
        return 0 if _members_of(rule) is _none else None
    total = 0
    for member in rule.fields:
        inner = _fixed(member.type)
        if inner is None or not member.required:
            return None
        total += 1 + inner
    return total


def _has_date_time(rule: inspect.Type) -> bool:
    if isinstance(rule, inspect.StructType):
        return any(_has_date_time(member.type) for member in rule.fields)
    inner = getattr(rule, "item_type", None) or getattr(rule, "type", None)
    kinds = [*getattr(rule, "types", ()), *([inner] if inner is not None else [])]
    return isinstance(rule, inspect.DateTimeType) or any(map(_has_date_time, kinds))
