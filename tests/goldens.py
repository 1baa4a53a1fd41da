"""Golden files (`tests/golden`): what the platform answers, tells and prints, as text that a person reviews in a change.

A test makes the text and gives it to `check`. `make golden` runs those tests, shows what is different, and writes it.
What no two runs have alike is replaced by a name, the same thing by the same name everywhere in a text: `<order-1>`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chassis.events import envelope
from chassis.events.event import Event
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden"
# Directories of `tests/golden` that hold nothing else.
KINDS = ("grpc", "problems", "events")
# Set by `make golden`.
WRITING = os.environ.get("GOLDEN") == "write"

_UUID = re.compile(r"(?:\b([a-z]+)/)?\b([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b")
_TIME = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
# Fields whose whole value is of one run, and what they are called.
_WHOLE = {
    "access_token": "access-token",
    "refresh_token": "refresh-token",
    "device_token": "device-token",
    "next_cursor": "cursor",
    "cursor": "cursor",
    "request_id": "request",
    "email": "email",
    "sku": "sku",
    "idempotency_key": "key",
    "payment_reference": "payment-reference",
    "credential_version": "credential-version",
}
# Of those, what is shorter was written by a test and says something.
_SHORTEST = 12
_WORD = re.compile(r"[A-Z][a-z]+")
# Whoever acts is a user, and stock is adjusted of a product.
_KINDS = {"actor": "user", "stock": "product"}


class Names:
    """The names of what is of one run, in the order in which it is first seen; those of `known` are given."""

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self._names = {value: f"<{name}>" for value, name in (known or {}).items()}
        self._counts: Counter[str] = Counter()

    def of(self, value: str, kind: str) -> str:
        """The name of a value; of this kind when it has none yet."""
        if value not in self._names:
            kind = _KINDS.get(kind, kind)
            self._counts[kind] += 1
            self._names[value] = f"<{kind}-{self._counts[kind]}>"
        return self._names[value]

    def text(self, text: str, kind: str = "id") -> str:
        """A text with names for the ids and times in it; an id behind "order/" is an order, else of the given kind."""

        def name(found: re.Match[str]) -> str:
            stands, value = found.groups()
            return (f"{stands}/" if stands else "") + self.of(value, stands or kind)

        return _TIME.sub(lambda found: self.of(found[0], "time"), _UUID.sub(name, text))

    def message(self, message: Message) -> Any:
        """A message as JSON has it, without the fields that are not set; its own `id` is one of its kind."""
        return self._named(MessageToDict(message, preserving_proto_field_name=True), message.DESCRIPTOR)  # type: ignore[arg-type]

    def _named(self, value: Any, descriptor: Descriptor | None, key: str = "") -> Any:
        if isinstance(value, dict):
            fields = descriptor.fields_by_name if descriptor else {}
            # What has no fields of a contract, as maps, has no order either.
            members = value.items() if set(value) <= set(fields) else sorted(value.items())
            return {
                # The keys of maps, and of what has no fields of a contract, are values as well.
                name if name in fields else self.text(name): self._named(
                    inner,
                    fields[name].message_type if name in fields else None,
                    _kind(descriptor) if descriptor and name == "id" else name,
                )
                for name, inner in members
            }
        if isinstance(value, list):
            return [self._named(inner, descriptor, key) for inner in value]
        if not isinstance(value, str) or not value:
            return value
        if key in _WHOLE and len(value) >= _SHORTEST:
            return self.of(value, _WHOLE[key])
        return self.text(value, key.removesuffix("_id").replace("_", "-"))


def _kind(descriptor: Descriptor) -> str:
    """What the `id` of a message is one of: of "Order" an order, and also of "GetOrderRequest"."""
    words = _WORD.findall(descriptor.name)
    return str(words[-2] if words[-1] == "Request" else "-".join(words)).lower()


def shown(value: Any) -> str:
    """As JSON that is read line by line."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def told(events: Iterable[Event]) -> str:
    """Events as the broker has them, in their order: the headers of each, and its data as JSON has it."""
    names, parts = Names(), []
    for event in events:
        message = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(event.type))
        data = shown(names.message(message.FromString(event.data)))
        headers = [
            f"{name}: {names.text(value, 'event' if name == 'ce-id' else 'id')}"
            for name, value in envelope.headers(event).items()
        ]
        parts.append("\n".join([f"## {event.type}", "", *headers, "", data]))
    return "\n\n".join(parts)


def differences(expected: str, found: str, path: Path) -> str:
    """What is different, as a patch; empty when nothing is."""
    name = str(path.relative_to(ROOT))
    lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), name, f"{name}, now", lineterm="")
    return "\n".join(lines)


def check(name: str, found: str) -> None:
    """Compare a text with its golden file, or, under `make golden`, show the difference and write it.

    Args:
        name: the file's path below `tests/golden`.
        found: the text.

    Raises:
        AssertionError: they differ, or there is no such file; the message is the patch.
    """
    path = GOLDEN / name
    found = found.rstrip("\n") + "\n"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    patch = differences(before, found, path)
    if WRITING and patch:
        print(patch)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
    else:
        assert not patch, f"`make golden` shows what has changed and writes it\n{patch}"


def names_in(directory: str) -> set[str]:
    """The golden files of a directory below `tests/golden`, without their suffixes."""
    return {path.stem for path in (GOLDEN / directory).iterdir()}
