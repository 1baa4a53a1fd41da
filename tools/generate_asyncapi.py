"""The AsyncAPI document: every event, who tells it, who acts upon it, and under which subject the broker has it.

Made of the contracts (messages with the option `common.v1.event`, their comments, and their text, which is the payload's
schema) and of the table of services.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chassis.events.subjects import of_type
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from mesh.topology import Service

_OPTION = "common.v1.event"
_PROTOBUF = "application/vnd.google.protobuf;version=3"
# chassis.events.envelope writes them: CloudEvents 1.0, NATS protocol binding, binary mode.
_HEADERS = {
    "type": "object",
    "required": [
        "ce-specversion",
        "ce-id",
        "ce-source",
        "ce-type",
        "ce-subject",
        "ce-time",
        "ce-dataschema",
        "content-type",
    ],
    "properties": {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {
            "type": "string",
            "format": "uuid",
            "description": "UUIDv7; the same for an event that is told again",
        },
        "ce-source": {"type": "string", "description": "The service that tells it"},
        "ce-type": {"type": "string", "description": "The full name of the message"},
        "ce-subject": {"type": "string", "description": "To what it happened: order/ID"},
        "ce-time": {"type": "string", "format": "date-time", "description": "When it happened, UTC"},
        "ce-dataschema": {"type": "string", "format": "uri"},
        "ce-traceparent": {
            "type": "string",
            "description": "W3C Trace Context of what caused it, where that was traced",
        },
        "content-type": {"const": "application/protobuf"},
    },
}
_ABOUT = """\
What services tell each other of what has happened. docs/events.md has what is promised: at least once, the events of one
subject (`order/ID`) in the order in which they happened, none of what was not committed. Nobody outside reads them.
"""


class EventError(Exception):
    """The contracts and the table of services do not agree; the message has a line for each fault."""


@dataclass(frozen=True)
class EventType:
    """A message that is an event."""

    # Its full name: "order.v1.OrderPlaced".
    name: str
    # To what it happens: "order".
    subject: str
    # What the contract says above it.
    summary: str
    # The message as it stands in the contract.
    text: str
    file: str

    @property
    def short_name(self) -> str:
        """Without the package."""
        return self.name.rpartition(".")[2]

    @property
    def package(self) -> str:
        """Of the message."""
        return self.name.rpartition(".")[0]


def event_types(descriptors: bytes, source: Path) -> list[EventType]:
    """The events of a FileDescriptorSet with source info and imports, whose files lie below `source`."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    pool = DescriptorPool()
    for file in files.file:
        pool.Add(file)
    options = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.MessageOptions"))
    found = []
    for file in files.file:
        for number, message in enumerate(file.message_type):
            # Read again by classes that know the extension.
            read = options.FromString(message.options.SerializeToString())
            said = [value for field, value in read.ListFields() if field.full_name == _OPTION]
            if not said:
                continue
            found.append(
                EventType(
                    f"{file.package}.{message.name}",
                    said[0].subject,
                    _comment(file, number),
                    _text(source / file.name, message.name),
                    file.name,
                )
            )
    return found


def _comment(file: descriptor_pb2.FileDescriptorProto, number: int) -> str:
    # The path of a message: field 4 of the file, and which of them (descriptor.proto, SourceCodeInfo.Location.path).
    for location in file.source_code_info.location:
        if list(location.path) == [4, number]:
            return " ".join(location.leading_comments.split())
    return ""


def _text(path: Path, name: str) -> str:
    found = re.search(rf"^message {name} \{{.*?^\}}\n", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def faults(events: Sequence[EventType], services: Sequence[Service]) -> Iterator[str]:
    """Where the contracts and the table of services do not agree."""
    published = {package: service for service in services for package in service.publishes}
    for event in events:
        if event.package not in published:
            yield f"{event.name} is an event, and no service publishes {event.package}"
        if not event.subject:
            yield f"{event.name} is an event, and its contract does not say to what it happens"
        if not event.summary:
            yield f"{event.name} is an event, and its contract does not say what has happened"
    names = {event.name for event in events}
    for package, service in published.items():
        if package not in {event.package for event in events}:
            yield f"{service.name} publishes {package}, which has no event"
        if service.database is None:
            yield f"{service.name} publishes events, and has no database whose transactions could record them"
    for service in services:
        for name in service.consumes:
            if name not in names:
                yield f"{service.name} consumes {name}, which is no event"


def document(events: Sequence[EventType], services: Sequence[Service]) -> str:
    """The document, as JSON.

    Raises:
        EventError: the contracts and the table of services do not agree.
    """
    if found := list(faults(events, services)):
        raise EventError("\n".join(found))
    said = {
        "asyncapi": "3.0.0",
        "info": {"title": "Production Backend: events", "version": "1.0.0", "description": _ABOUT},
        "defaultContentType": "application/protobuf",
        "channels": {event.name: _channel(event) for event in events},
        "operations": dict(_operations(events, services)),
        "components": {
            "messages": {event.name: _message(event) for event in events},
            "schemas": {"headers": _HEADERS},
        },
    }
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def _channel(event: EventType) -> dict[str, object]:
    messages = {event.short_name: {"$ref": f"#/components/messages/{event.name}"}}
    return {"address": of_type(event.name), "messages": messages, "x-subject": f"{event.subject}/ID"}


def _operations(events: Sequence[EventType], services: Sequence[Service]) -> Iterator[tuple[str, dict[str, object]]]:
    for service in services:
        for event in events:
            channel: dict[str, object] = {"$ref": f"#/channels/{event.name}"}
            if event.package in service.publishes:
                operation: dict[str, object] = {"action": "send", "channel": channel, "x-service": service.name}
                yield f"{service.name}.publishes.{event.name}", operation
            if event.name in service.consumes:
                operation = {"action": "receive", "channel": channel, "x-service": service.name}
                yield f"{service.name}.consumes.{event.name}", operation


def _message(event: EventType) -> dict[str, object]:
    return {
        "name": event.name,
        "title": event.short_name,
        "summary": event.summary,
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {"schemaFormat": _PROTOBUF, "schema": event.text},
        "x-file": f"api/proto/{event.file}",
    }
