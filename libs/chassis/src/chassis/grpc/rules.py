"""Field constraints from the contract, compiled once at start into plain closures.

Our own options (common/v1/options.proto) rather than protovalidate's: ADR 0003 has the measurement.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from contracts.common.v1 import options_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import FieldViolation, ServiceError

Check = Callable[[Message, str, list[FieldViolation]], None]
_Text = Callable[[str], str | None]
_Number = Callable[[int], str | None]
_Element = _Text | _Number

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")
_FORMATS = {
    options_pb2.FORMAT_UUID: (_UUID, "must be a UUID"),
    options_pb2.FORMAT_EMAIL: (_EMAIL, "must be an email address"),
}


def compile_rules(descriptor: Descriptor) -> Callable[[Message], None] | None:
    """A function that raises INVALID_ARGUMENT with every violation in a message, or None without any rule."""
    checks = _message_checks(descriptor, frozenset())
    if not checks:
        return None

    def validate(message: Message) -> None:
        violations: list[FieldViolation] = []
        for check in checks:
            check(message, "", violations)
        if violations:
            raise ServiceError("INVALID_ARGUMENT", violations=tuple(violations))

    return validate


def _message_checks(descriptor: Descriptor, seen: frozenset[str]) -> list[Check]:
    if descriptor.full_name in seen:
        return []
    if descriptor.full_name == Timestamp.DESCRIPTOR.full_name:
        return [_check_moment]
    seen |= {descriptor.full_name}
    checks = []
    for field in descriptor.fields:
        rules = field.GetOptions().Extensions[options_pb2.rules]
        nested = (
            _message_checks(field.message_type, seen)
            if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None
            else []
        )
        if check := _field_check(field, rules, nested):
            checks.append(check)
    return checks


def _check_moment(message: Message, name: str, violations: list[FieldViolation]) -> None:
    """A timestamp is a moment of the calendar (the message takes any number of seconds)."""
    try:
        cast("Timestamp", message).ToDatetime()
    except (ValueError, OverflowError):
        violations.append(FieldViolation(name, "is out of range"))


def _field_check(field: FieldDescriptor, rules: options_pb2.FieldRules, nested: list[Check]) -> Check | None:
    elements = _element_checks(field, rules)
    name = field.name
    if field.is_repeated:
        return _list_check(name, rules, elements, nested)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if not nested and not rules.required:
            return None
        return _submessage_check(name, nested, required=rules.required)
    required = rules.required
    if not required and not elements:
        return None
    optional = field.has_presence

    def check(message: Message, prefix: str, violations: list[FieldViolation]) -> None:
        if optional and not message.HasField(name):
            return
        value = getattr(message, name)
        if required and not value:
            violations.append(FieldViolation(f"{prefix}/{name}", "is required"))
            return
        for element in elements:
            if (problem := element(value)) is not None:
                violations.append(FieldViolation(f"{prefix}/{name}", problem))
                return

    return check


def _submessage_check(name: str, nested: list[Check], *, required: bool) -> Check:
    def check(message: Message, prefix: str, violations: list[FieldViolation]) -> None:
        if not message.HasField(name):
            if required:
                violations.append(FieldViolation(f"{prefix}/{name}", "is required"))
            return
        value = getattr(message, name)
        for inner in nested:
            inner(value, f"{prefix}/{name}", violations)

    return check


def _list_check(
    name: str, rules: options_pb2.FieldRules, elements: list[_Element], nested: list[Check]
) -> Check | None:
    minimum, maximum = rules.min_items or int(rules.required), rules.max_items
    if not (minimum or maximum or elements or nested):
        return None

    def check(message: Message, prefix: str, violations: list[FieldViolation]) -> None:
        values = getattr(message, name)
        if len(values) < minimum:
            violations.append(FieldViolation(f"{prefix}/{name}", f"must have at least {minimum} items"))
        elif maximum and len(values) > maximum:
            violations.append(FieldViolation(f"{prefix}/{name}", f"must have at most {maximum} items"))
        else:
            for index, value in enumerate(values):
                for element in elements:
                    if (problem := element(value)) is not None:
                        violations.append(FieldViolation(f"{prefix}/{name}/{index}", problem))
                        break
                for inner in nested:
                    inner(value, f"{prefix}/{name}/{index}", violations)

    return check


def _element_checks(field: FieldDescriptor, rules: options_pb2.FieldRules) -> list[_Element]:
    texts: list[_Text] = []
    numbers: list[_Number] = []
    if field.type == FieldDescriptor.TYPE_STRING:
        texts.append(lambda value: "must not contain a null character" if "\0" in value else None)
    if field.enum_type is not None:
        # Proto3 takes any number. One that only a newer caller knows is an error here: ignoring it would do something else.
        known = frozenset(field.enum_type.values_by_number)
        numbers.append(lambda value: None if value in known else "is not known")
    low, high = rules.min_length, rules.max_length
    if low:
        texts.append(lambda value: f"must have at least {low} characters" if len(value) < low else None)
    if high:
        texts.append(lambda value: f"must have at most {high} characters" if len(value) > high else None)
    if rules.HasField("minimum"):
        least = rules.minimum
        numbers.append(lambda value: f"must be at least {least}" if value < least else None)
    if rules.HasField("maximum"):
        most = rules.maximum
        numbers.append(lambda value: f"must be at most {most}" if value > most else None)
    if rules.pattern:
        pattern = re.compile(rules.pattern)
        texts.append(lambda value: None if pattern.fullmatch(value) else f"must match {pattern.pattern}")
    if rules.format:
        expected, problem = _FORMATS[rules.format]
        texts.append(lambda value: None if expected.fullmatch(value) else problem)
    return [*texts, *numbers]
