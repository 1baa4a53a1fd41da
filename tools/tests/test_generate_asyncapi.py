"""The AsyncAPI document is valid, says what the contracts and the table of services say, and refuses what does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import generate_asyncapi
import lint_asyncapi
import pytest
from chassis.events import envelope
from chassis.events.event import Event
from chassis.ids import uuid7
from generate_asyncapi import EventError, EventType, document
from jsonschema import Draft7Validator
from mesh.topology import SERVICES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = json.loads(lint_asyncapi.DOCUMENT.read_text(encoding="utf-8"))
# Who publishes, and nobody who consumes.
PUBLISHERS = [replace(one, consumes=()) for one in SERVICES]
HELD = EventType(
    "order.v1.OrderHeld", "order", "An order is held.", "message OrderHeld {\n}\n", "order/v1/events.proto"
)
TOLD = EventType("user.v1.UserTold", "user", "A user was told.", "message UserTold {\n}\n", "user/v1/events.proto")


def test_the_document_is_valid_and_has_every_event_once() -> None:
    assert list(lint_asyncapi.problems(DOCUMENT)) == []
    sent = {name for name, operation in DOCUMENT["operations"].items() if operation["action"] == "send"}
    assert sent == {f"{name.partition('.')[0]}.publishes.{name}" for name in DOCUMENT["channels"]}
    assert DOCUMENT["channels"]["order.v1.OrderPlaced"]["address"] == "events.order.v1.OrderPlaced"
    placed = DOCUMENT["components"]["messages"]["order.v1.OrderPlaced"]
    assert placed["summary"] == "An order has been placed, and its stock is reserved."
    assert placed["payload"]["schema"].startswith("message OrderPlaced {\n")


def test_what_is_no_asyncapi_is_found() -> None:
    assert list(lint_asyncapi.problems({**DOCUMENT, "asyncapi": "2.0.0"}))
    broken = json.loads(json.dumps(DOCUMENT).replace('"action": "send"', '"action": "sends"', 1))
    assert list(lint_asyncapi.problems(broken))
    dangling = json.loads(json.dumps(DOCUMENT).replace("#/channels/order.v1.OrderPaid", "#/channels/none"))
    assert list(lint_asyncapi.problems(dangling)) == ["#/channels/none leads nowhere"]


def test_the_headers_are_those_that_are_sent() -> None:
    event = Event(
        uuid7(),
        "order",
        "order.v1.OrderPaid",
        "order/1",
        datetime.now(UTC),
        "urn:x:y",
        f"00-{'a' * 32}-{'b' * 16}-01",
        b"",
    )
    schema = DOCUMENT["components"]["schemas"]["headers"]
    sent = envelope.headers(event)
    assert list(Draft7Validator(schema).iter_errors(sent)) == []
    assert sent.keys() == schema["properties"].keys()


def test_who_consumes_is_said() -> None:
    services = [replace(one, consumes=("order.v1.OrderHeld",)) if one.name == "user" else one for one in PUBLISHERS]
    made = json.loads(document([HELD, TOLD], services))
    assert made["operations"]["user.consumes.order.v1.OrderHeld"]["action"] == "receive"
    assert list(lint_asyncapi.problems(made)) == []


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([HELD], "user publishes user.v1, which has no event"),
        ([HELD, TOLD, replace(HELD, name="bff.v1.Held")], "no service publishes bff.v1"),
        ([TOLD, replace(HELD, subject="")], "does not say to what it happens"),
        ([TOLD, replace(HELD, summary="")], "does not say what has happened"),
    ],
)
def test_what_does_not_fit_is_refused(events: list[EventType], fault: str) -> None:
    with pytest.raises(EventError, match=fault):
        document(events, PUBLISHERS)


def test_a_consumer_of_what_nobody_tells_and_a_publisher_without_a_database_are_refused() -> None:
    services = [replace(one, consumes=("order.v1.OrderTold",)) if one.name == "user" else one for one in PUBLISHERS]
    with pytest.raises(EventError, match=r"user consumes order\.v1\.OrderTold, which is no event"):
        document([HELD, TOLD], services)
    services = [replace(one, database=None) if one.name == "order" else one for one in PUBLISHERS]
    with pytest.raises(EventError, match="order publishes events, and has no database"):
        document([HELD, TOLD], services)


def test_messages_are_read_with_their_comments_and_their_text(tmp_path: Path) -> None:
    (tmp_path / "stock").mkdir()
    (tmp_path / "stock/events.proto").write_text(
        'syntax = "proto3";\npackage stock.v1;\nimport "common/v1/options.proto";\n'
        '// It is\n// empty.\nmessage ShelfEmptied {\n  option (common.v1.event) = {subject: "shelf"};\n}\n'
        "message Shelf {}\n",
        encoding="utf-8",
    )
    out = tmp_path / "descriptors"
    options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={out}"]
    paths = [f"-I{tmp_path}", f"-I{ROOT / 'api/proto'}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *paths, *options, "stock/events.proto"], check=True)
    (event,) = generate_asyncapi.event_types(out.read_bytes(), tmp_path)
    text = 'message ShelfEmptied {\n  option (common.v1.event) = {subject: "shelf"};\n}\n'
    assert event == EventType("stock.v1.ShelfEmptied", "shelf", "It is empty.", text, "stock/events.proto")
