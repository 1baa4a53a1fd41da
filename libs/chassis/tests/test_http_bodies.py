"""Bodies: what is said about a wrong one, members that come twice, and that no client text costs more than its length."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any

import jsonschema_rs
import pytest
import yaml
from chassis.errors import ServiceError
from chassis.http import parsing
from chassis.http.bodies import BodyReader
from chassis.http.conformance import Conformance, is_date_time
from chassis.http.request import Request
from contracts.bff.v1 import models
from contracts.bff.v1.operations import OPERATIONS, ListOrdersQuery
from devstack.layout import ROOT
from msgspec import Meta, Struct

SCHEMAS = yaml.safe_load((ROOT / "api/openapi/bff.v1.yaml").read_text(encoding="utf-8"))["components"]["schemas"]
BODIES = sorted({operation.body for operation in OPERATIONS if operation.body}, key=lambda model: model.__name__)
LIMIT = 65536
PRODUCT = {"sku": "X-1", "name": "x", "price": {"amount_minor": 1, "currency": "EUR"}, "initial_stock": 0}


def refused(model: type[Struct], text: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        BodyReader(model).read(text)
    return caught.value


def places(model: type[Struct], value: Any) -> list[tuple[str, str]]:
    return [(v.where, v.detail) for v in refused(model, json.dumps(value).encode()).violations]


# Rounded to a float, several of them would be integers.
NO_INTEGERS = [
    "1.5", "1." + "0" * 40 + "1", "1.0000000000000000001", "0." + "9" * 4000, "1e-400000", "1e-1", "1e-99999999999999999999",
    "1e400", "-1e400", "1e99", "1e99999999999999999999", "9" * 5000, "9" * 41, "99999999999999999999.0", "true", '"1"',
    "[1]", "{}",
]  # fmt: skip


def with_integer(schema: dict[str, Any], number: str, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Each integer of a schema as this number, in a text that holds the members on the way to it only."""
    if "$ref" in schema:
        yield from with_integer(SCHEMAS[schema["$ref"].rsplit("/", 1)[1]], number, pointer)
    elif schema.get("type") == "integer":
        yield pointer, number
    elif schema.get("type") == "array":
        for place, text in with_integer(schema["items"], number, f"{pointer}/0"):
            yield place, f"[{text}]"
    else:
        for name, member in schema.get("properties", {}).items():
            for place, text in with_integer(member, number, f"{pointer}/{name}"):
                yield place, f'{{"{name}":{text}}}'


class TestWhatIsSaid:
    def test_every_violation_is_named(self) -> None:
        body = {**PRODUCT, "sku": 7, "price": {"amount_minor": -1, "currency": "EURO", "cents": 1}, "surprise": None}
        del body["name"]
        assert places(models.CreateProductRequest, body) == [
            ("/sku", "must be a string"),
            ("/price/amount_minor", "must be at least 0"),
            ("/price/currency", "must have at most 3 characters"),
            ("/price/cents", "is not a member of this object"),
            ("/surprise", "is not a member of this object"),
            ("/name", "is required"),
        ]

    def test_a_pointer_escapes_what_rfc_6901_says(self) -> None:
        assert places(models.RefreshRequest, {"a/b~c": 1})[0][0] == "/a~1b~0c"

    def test_a_key_that_reads_like_a_message_is_a_key(self) -> None:
        key = "x - at `$.items[3]`"
        assert places(models.RefreshRequest, {key: 1}) == [("/" + key, "is not a member of this object")]

    def test_a_long_key_is_not_repeated_and_many_are_not_listed(self) -> None:
        assert places(models.RefreshRequest, {"x" * 60_000: 1}) == [("", "has an unknown member")]
        assert len(places(models.RefreshRequest, {f"k{i}": 1 for i in range(5000)})) == 20

    @pytest.mark.parametrize("number", ["1.0", "1e0", "10E-1", "1.000", "100e-2"])
    def test_a_number_without_fraction_is_an_integer(self, number: str) -> None:
        text = json.dumps(PRODUCT).replace('"amount_minor": 1', f'"amount_minor": {number}')
        price = BodyReader(models.CreateProductRequest).read(text.encode()).price
        assert price.amount_minor == 1
        assert type(price.amount_minor) is int

    @pytest.mark.parametrize("number", NO_INTEGERS, ids=lambda number: number[:20])
    def test_what_is_no_integer_or_out_of_range_is_named(self, number: str) -> None:
        """In every integer of the contract that a client sends."""
        asked = 0
        for model in BODIES:
            for pointer, text in with_integer(SCHEMAS[model.__name__], number):
                assert pointer in [v.where for v in refused(model, text.encode()).violations], (model, text)
                asked += 1
        assert asked == 5

    @pytest.mark.parametrize("number", ["7.0", "70e-1", "0.7E1", "7." + "0" * 4000, "0." + "0" * 39 + "7e40"])
    def test_an_exact_integer_is_one_in_every_spelling(self, number: str) -> None:
        for model in BODIES:
            for pointer, text in with_integer(SCHEMAS[model.__name__], number):
                with contextlib.suppress(ServiceError):
                    BodyReader(model).read(text.encode())
                    continue
                assert pointer not in [v.where for v in refused(model, text.encode()).violations], (model, text)

    @pytest.mark.parametrize("model", BODIES, ids=lambda model: model.__name__)
    def test_the_walk_and_the_contracts_validator_agree(self, model: type[Struct]) -> None:
        """Ten thousand values that are nearly right, by the contract's own validator, by msgspec and by the walk."""
        validator = jsonschema_rs.Draft202012Validator(
            {"$ref": f"#/components/schemas/{model.__name__}", "components": {"schemas": SCHEMAS}}
        )
        chance, conformance = random.Random(model.__name__), Conformance(model)
        for _ in range(600):
            value = nearly(SCHEMAS[model.__name__], chance)
            # `minProperties` is asked for by the handlers that need it.
            valid = validator.is_valid(value) or value == {}
            body, violations = conformance.of(value)
            if value == {} and SCHEMAS[model.__name__].get("minProperties") is None:
                continue
            assert (body is not None) == valid == (not violations), (value, violations)


def nearly(schema: dict[str, Any], chance: random.Random) -> Any:  # noqa: PLR0911 - one a type
    """A value of the schema, or one with something wrong in it."""
    if "$ref" in schema:
        return nearly(SCHEMAS[schema["$ref"].rsplit("/", 1)[1]], chance)
    if chance.random() < 0.08:
        return chance.choice([None, True, 0, 1.0, 1.5, 10**15, -(10**15), "", "x", "x" * 300, "\0", [], {}, [1], "é\n"])
    if "enum" in schema:
        return chance.choice(schema["enum"])
    match schema["type"]:
        case "object":
            names = [n for n in schema["properties"] if chance.random() > 0.05]
            extra = {"surprise": 1} if chance.random() < 0.05 else {}
            return {name: nearly(schema["properties"][name], chance) for name in names} | extra
        case "array":
            length = chance.choice([schema.get("minItems", 0), 1, 2, schema["maxItems"] + (chance.random() < 0.1)])
            return [nearly(schema["items"], chance) for _ in range(length)]
        case "integer":
            return chance.choice([schema["minimum"], schema["maximum"], float(schema["minimum"]), 1])
        case "boolean":
            return chance.random() < 0.5
        case _:
            return chance.choice(["a@b.de", "a long password", "EUR", "tok_a", "X-1", "é" * 12,
                                  "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21", "EUR\n"])  # fmt: skip


class Optional(Struct, forbid_unknown_fields=True):
    reason: str
    restock: bool = True
    note: str | None = None
    lines: list[models.OrderLine] = []


class TestMembersThatComeTwice:
    @pytest.mark.parametrize(
        ("model", "text"),
        [
            (models.LoginRequest, b'{"email":"a","email":"b","password":"x"}'),
            (models.LoginRequest, b'{"email":"a", "password" : "x", "e\\u006dail"\n:"b"}'),
            (models.UpdateMeRequest, b'{"display_name":"a:b","display_name":"c"}'),
            (models.UpdateProductRequest, b'{"price":{"amount_minor":1,"currency":"EUR","amount_minor":2}}'),
            (models.CreateOrderRequest, b'{"items":[{"product_id":"01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21","quantity":1,'
                                        b'"quantity":2}]}'),
            (Optional, b'{"reason":"x","reason":"y"}'),
            (Optional, b'{"reason":"x","note":null,"note":null}'),
            (Optional, b'{"reason":"x","restock":true,"restock":true}'),
            (Optional, b'{"reason":"x","lines":[],"lines":[]}'),
            # Wrong otherwise, too: that the text cannot be trusted comes first.
            (models.LoginRequest, b'{"x":{"a":1,"a":2}}'),
        ],
    )  # fmt: skip
    def test_they_are_refused_at_every_depth(self, model: type[Struct], text: bytes) -> None:
        assert refused(model, text).reason == "MALFORMED_REQUEST"

    @pytest.mark.parametrize(
        ("model", "text"),
        [
            (models.UpdateMeRequest, b'{"display_name":"a:b::\\":"}'),
            (models.UpdateProductRequest, b'{"name":"x"}'),
            (models.UpdateProductRequest, b'{"name":"x","price":{"amount_minor":1,"currency":"EUR"}}'),
            (models.RefreshRequest, b"{}"),
            (Optional, b'{"reason":"x"}'),
            (Optional, b'{"reason":"x","restock":true,"note":null,"lines":[]}'),
        ],
    )
    def test_an_ordinary_body_is_read(self, model: type[Struct], text: bytes) -> None:
        BodyReader(model).read(text)

    def test_an_ordinary_body_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No second reading: that would be the cost of every request."""
        monkeypatch.setattr("chassis.http.bodies.parse", lambda _: pytest.fail("read twice"))
        order = {"items": [{"product_id": "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21", "quantity": 2}] * 50}
        BodyReader(models.CreateOrderRequest).read(json.dumps(order).encode())
        BodyReader(models.CreateProductRequest).read(json.dumps(PRODUCT).encode())
        BodyReader(models.UpdateProductRequest).read(b'{"name": "x"}')


class TestNotJson:
    @pytest.mark.parametrize(
        "text",
        [b"", b"{", b"nul", b"NaN", b'{"email": NaN}', b'{"email": -Infinity}', b"\xef\xbb\xbf{}", b'"\xff"', b"{}{}",
         b"[" * 30_000, b'{"a":' * 10_000, b"'a'", b"01", b'"\n"', "{}".encode("utf-16")],
    )  # fmt: skip
    def test_it_is_malformed(self, text: bytes) -> None:
        assert refused(models.LoginRequest, text).reason == "MALFORMED_REQUEST"


class Dated(Struct, forbid_unknown_fields=True):
    at: Annotated[datetime, Meta(tz=True)]


DATE_TIMES = {
    "2026-01-01T00:00:00Z": True, "2026-01-01t00:00:00.5z": True, "2026-01-01T00:00:00+14:00": True,
    "0.5": False, "1767225600": False, "2026-01-01": False, "2026-01-01 00:00:00Z": False, "2026-01-01T00:00:00": False,
    "2026-01-01T00:00:00+0000": False, "2026-01-01T00:00Z": False, "20260101T000000Z": False, "2026-13-01T00:00:00Z": False,
    "2026-01-01T24:00:00Z": False, "0000-01-01T00:00:00Z": False, "\N{FULLWIDTH DIGIT TWO}026-01-01T00:00:00Z": False, "": False,
    "2026-01-01T00:00:00Z\n": False, "2026-01-01T00:00:00+24:00": False, "now": False, "2026-01-01T00:00:00,5Z": False,
}  # fmt: skip


@pytest.mark.parametrize(("text", "valid"), DATE_TIMES.items())
def test_a_date_time_is_one_of_rfc_3339(text: str, valid: bool) -> None:
    assert is_date_time(text) is valid
    query = parsing._Parameters(ListOrdersQuery, "parameter", str)
    if valid:
        assert isinstance(query.of({"created_from": text}).created_from, datetime)
        assert isinstance(BodyReader(Dated).read(json.dumps({"at": text}).encode()).at, datetime)
    else:
        with pytest.raises(ServiceError) as caught:
            query.of({"created_from": text})
        assert [(v.place, v.where) for v in caught.value.violations] == [("parameter", "created_from")]
        assert places(Dated, {"at": text})[0][0] == "/at"


async def nothing() -> dict[str, Any]:
    return {"type": "http.request"}


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "query_string": b"", "headers": raw}, nothing)


HOSTILE: dict[str, Callable[[int], Callable[[], Any]]] = {
    "a key like a message's end": lambda n: lambda: body(b'{"x - at `$' + b"[" * n + b'":1}'),
    "a key of steps": lambda n: lambda: body(b'{"' + b".a[" * (n // 3) + b'":1}'),
    "a value of a pattern": lambda n: lambda: body(b'{"email":"' + b"a@" * (n // 2) + b'","password":"x"}'),
    "a value without @": lambda n: lambda: register("a" * n),
    "many @": lambda n: lambda: register("@" * n),
    "a huge integer": lambda n: lambda: body(b'{"email":' + b"9" * n + b"}"),
    "many large integers": lambda n: lambda: body(b'{"email":[' + b",".join([b"9" * 4000] * (n // 4000)) + b"]}"),
    "a huge fraction": lambda n: lambda: body(b'{"email":0.' + b"9" * n + b"}"),
    "a huge exponent": lambda n: lambda: body(b'{"email":1e' + b"9" * n + b"}"),
    "a long fraction of zeros": lambda n: lambda: body(b'{"email":1.' + b"0" * n + b"1}"),
    "many fractions": lambda n: lambda: body(b'{"email":[' + b",".join([b"1.5e7"] * (n // 6)) + b"]}"),
    "many members": lambda n: lambda: body(b"{" + b",".join(b'"%d":1' % i for i in range(n // 7)) + b"}"),
    "one member many times": lambda n: lambda: body(b"{" + b",".join([b'"email":"a"'] * (n // 12)) + b"}"),
    "deep": lambda n: lambda: body(b'{"email":' + b"[" * n),
    "escapes": lambda n: lambda: body(b'{"email":"' + b"\\u00e9" * (n // 6) + b'"}'),
    "backslashes": lambda n: lambda: body(b'{"email":"' + b"\\\\" * (n // 2)),
    "colons": lambda n: lambda: body(b'{"email":"' + b":" * n + b'","password":"x"}'),
    "a quoted cookie": lambda n: lambda: parsing.read_cookies(request(cookie='x="' + "\\" * n + '"'), "refresh_token"),
    "many cookies": lambda n: lambda: parsing.read_cookies(request(cookie="x;" * (n // 2)), "refresh_token"),
    "accept": lambda n: lambda: parsing.accepts(request(accept="a/b;q=1," * (n // 8)), "application/json"),
    "accept, one long weight": lambda n: lambda: parsing.accepts(request(accept="*/*;q=" + "9" * n), "application/json"),
    "accept, many parameters": lambda n: lambda: parsing.accepts(request(accept="*/*" + ";q=1" * (n // 4)), "a/b"),
    "a long limit": lambda n: lambda: query(limit="9" * n),
    "a long time": lambda n: lambda: query(created_from="2026-01-01T00:00:00." + "9" * n + "Z"),
}  # fmt: skip


def body(text: bytes) -> None:
    with pytest.raises(ServiceError):
        BodyReader(models.LoginRequest).read(text)


def register(email: str) -> None:
    with pytest.raises(ServiceError):
        text = json.dumps({"email": email, "password": "x" * 10, "display_name": "x"})
        BodyReader(models.RegisterRequest).read(text.encode())


def query(**values: str) -> None:
    with pytest.raises(ServiceError):
        parsing._Parameters(ListOrdersQuery, "parameter", str).of(dict(values))


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE.keys())
def test_reading_takes_a_time_that_grows_with_the_text_and_no_faster(
    attack: Callable[[int], Callable[[], Any]],
) -> None:
    """Of the process's own time; the largest body that is let in takes milliseconds, by a quadratic reading seconds."""

    def seconds(size: int) -> float:
        run, best = attack(size), float("inf")
        for _ in range(3):
            started = time.process_time()
            run()
            best = min(best, time.process_time() - started)
        return best

    assert seconds(LIMIT) < max(0.05, 20 * seconds(LIMIT // 8))
    assert sys.getrecursionlimit() < LIMIT


@pytest.mark.parametrize(
    ("model", "member", "body"),
    [
        (models.UpdateMeRequest, "display_name", {}),
        (models.CancellationRequest, "reason", {}),
        (models.ShipmentRequest, "carrier", {"tracking_number": "1"}),
        (models.ShipmentRequest, "tracking_number", {"carrier": "1"}),
        (models.UpdateProductRequest, "name", {}),
    ],
)
def test_what_people_read_holds_nothing_that_cannot_be_seen_or_turns_a_line(
    model: type[Struct], member: str, body: dict[str, str]
) -> None:
    reader: BodyReader[Any] = BodyReader(model)
    for text in (
        "Ada",
        "Ada Lovelace ",
        "\u674e",
        "e\u0301",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f469\u200d\U0001f680",
    ):
        assert getattr(reader.read(json.dumps({**body, member: text}).encode()), member) == text
    for text in (
        " ",
        " x",
        "\u3000x",
        "\xa0",
        "\u200b",
        "\u200dx",
        "x\x1b[31m",
        "x\ny",
        "x\u2028y",
        "x\u202ey",
        "x\u2066y",
        "x\ufeff",
        "x\x85",
    ):
        with pytest.raises(ServiceError) as caught:
            reader.read(json.dumps({**body, member: text}).encode())
        ((where, detail, _),) = [(v.where, v.detail, v.place) for v in caught.value.violations]
        assert (where, detail[:36]) == (f"/{member}", "must begin with a visible character,"), text
