"""What a value breaks of a model, in our own words: the walk behind every 422.

msgspec decides on the fast path and says no more than yes or no: its messages carry client text, and nothing of a
client's is parsed again. Only when it has said no is the value walked here, member by member along the *model*, so
the work is bounded by the value's size and its depth by the model's. The walk also makes integers of numbers whose
fraction is zero (JSON Schema 2020-12, section 6.1.1: `1.0` is an integer), which msgspec does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct, inspect

from chassis.errors import FieldViolation

S = TypeVar("S", bound=Struct)

# A walk that takes a value and its pointer, notes what is wrong, and returns the value as the model wants it.
_Walk = Callable[[object, str, "Findings"], object]

# RFC 3339, section 5.6; whether there is such a day is asked of the calendar afterwards.
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_MOST_VIOLATIONS = 20
# A pointer is shown up to here; a longer name is the client's own and nothing to repeat.
_LONGEST_NAME = 100


class Findings(list[FieldViolation]):
    """The violations found so far; the first twenty are enough to answer with."""

    def note(self, where: str, detail: str) -> None:
        """One more violation at `where`."""
        if len(self) < _MOST_VIOLATIONS:
            self.append(FieldViolation(where, detail))


class Conformance(Generic[S]):
    """One model's rules, compiled once.

    Raises:
        TypeError: the model has a type that no contract of ours uses; found at start.
    """

    def __init__(self, model: type[S]) -> None:
        self._model = model
        self._walk = _walk(inspect.type_info(model))

    def of(self, value: object) -> tuple[S | None, tuple[FieldViolation, ...]]:
        """The model made of a decoded JSON value, or what is wrong with it."""
        findings = Findings()
        conforming = self._walk(value, "", findings)
        if not findings:
            try:
                return msgspec.convert(conforming, self._model), ()
            except msgspec.ValidationError:
                # The two readings of one contract differ; msgspec's, which admits to the fast path, is the stricter.
                findings.note("", "is not valid")
        return None, tuple(findings)


def is_date_time(text: str) -> bool:
    """Whether `text` is an RFC 3339 date-time; leap seconds are not in Python's calendar and are none here."""
    if len(text) > 64 or not _DATE_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return True


def fields_of(model: type[Struct]) -> tuple[inspect.Field, ...]:
    """The members of a model, as msgspec sees them."""
    info = inspect.type_info(model)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{model} is no Struct")
    return info.fields


def escape(name: str) -> str:
    """A member's name as a step of a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def _walk(rule: inspect.Type) -> _Walk:  # noqa: PLR0911 - one for each kind of type
    if isinstance(rule, inspect.Metadata):
        said = (rule.extra_json_schema or {}).get("description", "")
        # What a pattern demands, in the contract's own words.
        if isinstance(rule.type, inspect.StrType) and said.startswith("must "):
            return _string(rule.type, said)
        return _walk(rule.type)
    match rule:
        case inspect.StructType():
            return _object(rule)
        case inspect.ListType():
            return _array(rule)
        case inspect.StrType():
            return _string(rule)
        case inspect.IntType():
            return _integer(rule)
        case inspect.BoolType():
            return _boolean
        case inspect.DateTimeType():
            return _date_time
        case inspect.LiteralType():
            return _literal(rule)
        case inspect.UnionType():
            return _union(rule)
    raise TypeError(f"no contract of ours has a {rule}")


def _object(rule: inspect.StructType) -> _Walk:
    members = {member.encode_name: (_walk(member.type), member.required) for member in rule.fields}

    def walk(value: object, pointer: str, findings: Findings) -> object:
        if not isinstance(value, dict):
            findings.note(pointer, "must be an object")
            return value
        found = {}
        for name, inner in value.items():
            if name in members:
                found[name] = members[name][0](inner, f"{pointer}/{escape(name)}", findings)
            elif rule.forbid_unknown_fields:
                shown = f"/{escape(name)}" if len(name) <= _LONGEST_NAME and _is_unicode(name) else ""
                findings.note(pointer + shown, "is not a member of this object" if shown else "has an unknown member")
        for name, (_, required) in members.items():
            if required and name not in value:
                findings.note(f"{pointer}/{escape(name)}", "is required")
        return found

    return walk


def _array(rule: inspect.ListType) -> _Walk:
    item = _walk(rule.item_type)
    least, most = rule.min_length or 0, rule.max_length

    def walk(value: object, pointer: str, findings: Findings) -> object:
        if not isinstance(value, list):
            findings.note(pointer, "must be an array")
        elif len(value) < least:
            findings.note(pointer, f"must have at least {least} items")
        elif most is not None and len(value) > most:
            findings.note(pointer, f"must have at most {most} items")
        else:
            return [item(inner, f"{pointer}/{index}", findings) for index, inner in enumerate(value)]
        return value

    return walk


def _string(rule: inspect.StrType, demand: str = "") -> _Walk:
    least, most = rule.min_length or 0, rule.max_length
    pattern = re.compile(rule.pattern) if rule.pattern else None

    def walk(value: object, pointer: str, findings: Findings) -> object:
        if not isinstance(value, str):
            findings.note(pointer, "must be a string")
        elif len(value) < least:
            findings.note(pointer, f"must have at least {least} characters")
        elif most is not None and len(value) > most:
            findings.note(pointer, f"must have at most {most} characters")
        elif not _is_unicode(value):
            findings.note(pointer, "must not contain half of a surrogate pair")
        elif pattern is not None and not pattern.search(value):
            findings.note(pointer, demand or f"must match {pattern.pattern}")
        return value

    return walk


def _integer(rule: inspect.IntType) -> _Walk:
    least = -math.inf if rule.ge is None else rule.ge
    most = math.inf if rule.le is None else rule.le

    def walk(value: object, pointer: str, findings: Findings) -> object:
        # True is an int to Python and no number to JSON. An infinity is a number too large to be held.
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            findings.note(pointer, "must be an integer")
        elif value < least:
            findings.note(pointer, f"must be at least {least}")
        elif value > most:
            findings.note(pointer, f"must be at most {most}")
        elif isinstance(value, float) and value.is_integer():
            return int(value)
        elif not isinstance(value, int):
            findings.note(pointer, "must be an integer")
        return value

    return walk


def _boolean(value: object, pointer: str, findings: Findings) -> object:
    if not isinstance(value, bool):
        findings.note(pointer, "must be true or false")
    return value


def _date_time(value: object, pointer: str, findings: Findings) -> object:
    if not isinstance(value, str) or not is_date_time(value):
        findings.note(pointer, "must be a date-time with its offset (RFC 3339)")
    return value


def _literal(rule: inspect.LiteralType) -> _Walk:
    allowed = frozenset(rule.values)
    detail = "must be " + " or ".join(map(str, rule.values))

    def walk(value: object, pointer: str, findings: Findings) -> object:
        if not isinstance(value, str | int) or isinstance(value, bool) or value not in allowed:
            findings.note(pointer, detail)
        return value

    return walk


def _union(rule: inspect.UnionType) -> _Walk:
    nullable = rule.includes_none
    kinds = [kind for kind in rule.types if not isinstance(kind, inspect.NoneType)]
    if len(kinds) != 1:
        raise TypeError(f"no contract of ours has a {rule}")
    inner = _walk(kinds[0])

    def walk(value: object, pointer: str, findings: Findings) -> object:
        return value if value is None and nullable else inner(value, pointer, findings)

    return walk


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
