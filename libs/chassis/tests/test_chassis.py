from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import uuid
from typing import Any

import msgspec
import pytest
from chassis.cache import stored_under
from chassis.config import ConfigurationError, DatabaseSettings, load
from chassis.context import accept_request_id
from chassis.cursors import CursorSigner
from chassis.errors import FieldViolation, ServiceError, as_service_error
from chassis.grpc import framing
from chassis.grpc.policy import ContractMismatchError
from chassis.http import parsing
from chassis.http.answers import expected_versions, is_current
from chassis.http.application import HttpApplication
from chassis.http.request import Request
from chassis.ids import uuid7
from contract_runtime.operation import Operation, RateLimit
from contracts.errors import ERRORS
from contracts.user.v1.session_pb2 import Session, SessionRecord
from contracts.user.v1.user_pb2 import User
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

printable = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


class TestErrors:
    @given(
        st.sampled_from(sorted(ERRORS)),
        printable,
        st.lists(st.builds(FieldViolation, printable, printable), max_size=3).map(tuple),
        st.one_of(st.none(), st.integers(0, 10**6).map(lambda ms: ms / 1000)),
        st.dictionaries(printable, printable, max_size=3),
    )
    def test_an_error_survives_the_way_over_grpc(
        self, reason: str, detail: str, violations: Any, retry_after: float | None, facts: dict[str, str]
    ) -> None:
        if detail == ERRORS[reason].title:
            detail = ""
        error = ServiceError(reason, detail, violations, retry_after, facts)
        back = ServiceError.from_status(Status.FromString(error.to_status().SerializeToString()))
        assert (back.reason, back.detail, back.violations) == (reason, detail, violations)
        assert (back.retry_after, back.facts) == (retry_after, facts)

    def test_every_reason_has_a_problem_of_its_own(self) -> None:
        problems = [ServiceError(reason).to_problem("id") for reason in ERRORS]
        assert len({problem.type for problem in problems}) == len(ERRORS)
        assert all(400 <= problem.status < 600 and problem.title for problem in problems)

    def test_a_status_that_is_not_ours_is_read_by_its_code(self) -> None:
        assert ServiceError.from_status(Status(code=14)).reason == "UNAVAILABLE"
        assert ServiceError.from_status(Status(code=4)).reason == "DEADLINE_EXCEEDED"
        assert ServiceError.from_status(Status(code=5)).reason == "INTERNAL"

    def test_only_errors_of_the_table_are_shown(self) -> None:
        assert as_service_error(ValueError("secret")) is None


class TestFraming:
    @given(st.binary(max_size=5000), st.booleans())
    def test_a_frame_decodes_to_its_message(self, message: bytes, compress: bool) -> None:
        frame = framing.encode_frame(message, compress=compress)
        assert framing.decode_single(frame, b"gzip", 10_000) == message

    @given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 64))
    async def test_a_stream_decodes_however_it_is_cut(self, messages: list[bytes], size: int) -> None:
        body = b"".join(framing.encode_frame(message) for message in messages)

        async def chunks() -> Any:
            for start in range(0, len(body), size):
                yield body[start : start + size]

        assert [message async for message in framing.decode_stream(chunks(), b"identity", 10_000)] == messages

    @given(st.binary(max_size=200))
    def test_garbage_is_a_protocol_error_or_a_message(self, body: bytes) -> None:
        try:
            framing.decode_single(body, b"gzip", 100)
        except framing.ProtocolError as error:
            assert error.details

    @given(printable)
    def test_a_status_message_survives(self, text: str) -> None:
        encoded = framing.encode_message(text)
        assert all(0x20 <= byte <= 0x7E for byte in encoded)
        assert framing.decode_message(encoded.decode()) == text

    @given(st.floats(0, 10**8))
    def test_a_timeout_survives_to_the_millisecond(self, seconds: float) -> None:
        parsed = framing.parse_timeout(framing.format_timeout(seconds).encode())
        assert parsed is not None
        # Truncated, never longer: to the millisecond while that fits eight digits, to the second above.
        assert -1e-9 <= seconds - parsed < (1.1 if seconds >= 10**5 else 0.002)

    @pytest.mark.parametrize("value", [b"", b"1", b"S", b"-1S", b"123456789S", b"1x", b"1.5S"])
    def test_what_is_no_timeout_is_none(self, value: bytes) -> None:
        assert framing.parse_timeout(value) is None


class TestCursors:
    signer = CursorSigner("s" * 32)

    @given(printable, st.lists(printable, min_size=1, max_size=3))
    def test_a_cursor_gives_its_key_back(self, scope: str, key: list[str]) -> None:
        assert self.signer.decode(scope, self.signer.encode(scope, key), len(key)) == key

    @given(st.lists(printable, min_size=1, max_size=2), st.data())
    def test_any_change_is_noticed(self, key: list[str], data: st.DataObject) -> None:
        cursor = self.signer.encode("list", key)
        position = data.draw(st.integers(0, len(cursor) - 1))
        letter = data.draw(st.sampled_from("ABCabc019-_"))
        changed = cursor[:position] + letter + cursor[position + 1 :]
        if changed == cursor:
            return
        with pytest.raises(ServiceError, match="INVALID_CURSOR"):
            self.signer.decode("list", changed, len(key))

    def test_another_spelling_of_the_same_bytes_is_invalid(self) -> None:
        # 16 bytes of signature and 3 of payload: the last letter holds four bits that base64 ignores.
        cursor = self.signer.encode("list", ["a"])
        respelled = cursor[:-1] + chr(ord(cursor[-1]) + 1)
        assert base64.urlsafe_b64decode(respelled + "==") == base64.urlsafe_b64decode(cursor + "==")
        with pytest.raises(ServiceError, match="INVALID_CURSOR"):
            self.signer.decode("list", respelled, 1)

    @given(printable)
    def test_text_that_is_no_cursor_is_invalid(self, text: str) -> None:
        if not text:
            assert self.signer.decode("list", text, 1) is None
            return
        with pytest.raises(ServiceError):
            self.signer.decode("list", text, 1)

    def test_another_secret_and_another_list_are_invalid(self) -> None:
        cursor = self.signer.encode("list", ["a"])
        for signer, scope in ((CursorSigner("t" * 32), "list"), (self.signer, "other")):
            with pytest.raises(ServiceError):
                signer.decode(scope, cursor, 1)


def test_the_contract_says_where_records_are_kept() -> None:
    assert (stored_under(User), stored_under(SessionRecord)) == ("user:", "session:")
    with pytest.raises(ValueError, match=r"user\.v1\.Session has no option"):
        stored_under(Session)


class TestIds:
    def test_a_uuid7_says_so_and_carries_its_time(self) -> None:
        before, made, after = time.time_ns(), uuid7(), time.time_ns()
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert before // 10**6 <= made.int >> 80 <= after // 10**6

    def test_ids_do_not_repeat(self) -> None:
        assert len({uuid7() for _ in range(10_000)}) == 10_000


class TestRequestIds:
    @pytest.mark.parametrize("offered", [None, "", "short", "x" * 65, "with space 1", "new\nline-123", "ünïcode-1"])
    def test_an_ill_formed_one_is_replaced(self, offered: str | None) -> None:
        assert accept_request_id(offered) != offered

    def test_a_well_formed_one_is_kept(self) -> None:
        assert accept_request_id("3f0d9e6a-7b21") == "3f0d9e6a-7b21"


class TestConfiguration:
    def test_a_wrong_start_names_every_bad_variable_and_no_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_POOL_MAX", "0")
        monkeypatch.setenv("CURSOR_SECRET", "hunter2")
        monkeypatch.delenv("DATABASE_URL", raising=False)
        with pytest.raises(ConfigurationError) as caught:
            load(DatabaseSettings)
        message = str(caught.value)
        for expected in (
            "DATABASE_URL: Field required",
            "DATABASE_POOL_MAX: Input should be greater",
            "CURSOR_SECRET:",
        ):
            assert expected in message
        assert "hunter2" not in message

    def test_a_secret_cannot_be_printed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        secrets = {"DATABASE_URL": "hunter2", "CURSOR_SECRET": "hunter2" * 5}
        for name, value in {**secrets, "JWKS_FILE": "jwks.json"}.items():
            monkeypatch.setenv(name, value)
        settings = load(DatabaseSettings)
        assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"
        with pytest.raises(ValueError, match="frozen"):
            settings.environment = "x"


def test_a_log_line_has_the_standard_fields_the_request_and_no_secret() -> None:
    script = """
import structlog
from pydantic import SecretStr
from chassis.logging import configure
from chassis.context import RequestContext, serving
configure("svc", environment="test", version="1")
with serving(RequestContext("request-1", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")):
    structlog.get_logger().info("hello", password=SecretStr("hunter2"))
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("failed")
import logging
logging.getLogger("library").error("from a library")
structlog.get_logger().debug("below the level")
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    first, second, third = (json.loads(line) for line in output.splitlines())
    assert first.keys() == {
        "event", "level", "time", "service", "environment", "version", "instance_id", "request_id", "trace_id",
        "span_id", "password",
    }  # fmt: skip
    assert (first["request_id"], first["trace_id"], first["span_id"]) == ("request-1", "a" * 32, "b" * 16)
    assert b"hunter2" not in output
    assert "ValueError: boom" in second["exception"]
    assert (third["event"], third["level"], "request_id" in third) == ("from a library", "error", False)


async def nothing() -> dict[str, Any]:
    return {"type": "http.request"}


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, nothing)


class TestHttp:
    @pytest.mark.parametrize(
        ("accept", "accepted"),
        [
            ("", True), ("*/*", True), ("application/*", True), ("application/json", True), ("text/html", False),
            ("text/html, */*;q=0.1", True), ("application/json;q=0", False), ("*/*;q=0", False),
            ("application/json;q=0, */*", False), ("application/json;q=x", False), ("APPLICATION/JSON", True),
        ],
    )  # fmt: skip
    def test_accept(self, accept: str, accepted: bool) -> None:
        assert parsing.accepts(request(accept=accept), "application/json") is accepted

    def test_entity_tags(self) -> None:
        assert is_current('"3"', 3)
        assert is_current('"1", W/"3"', 3)
        assert is_current("*", 3)
        assert not is_current('"2"', 3)
        assert not is_current(msgspec.UNSET, 3)
        assert is_current(", ".join(f'"{i}"' for i in range(500)) + ', W/"501"', 501)
        assert not is_current('"a,"3"', 3)
        assert not is_current("3", 3)

    @pytest.mark.parametrize(
        ("if_match", "versions"),
        [
            (msgspec.UNSET, (None,)), ("*", (None,)), ('"3"', (3,)), ('"1", "3", W/"2"', (3, 1)), ('W/"1"', (0,)),
            ('"abc"', (0,)), ('""', (0,)), ('"01"', (0,)), ('"1,2"', (0,)), ('"' + "9" * 30 + '"', (0,)), ('"0"', (0,)),
        ],
    )  # fmt: skip
    def test_if_match(self, if_match: Any, versions: tuple[int | None, ...]) -> None:
        assert expected_versions(if_match) == versions

    def operation(self, **changes: Any) -> Operation:
        known: dict[str, Any] = {
            "id": "getThing", "handler": "get_thing", "method": "GET", "path": "/thing", "permission": "orders:read",
            "anonymous": False, "success": 200, "media_type": "application/json",
            "timeout": 2.0, "rate_limit": RateLimit(1, 1, False), "operation_class": "read",
        }  # fmt: skip
        return Operation(**{**known, **changes})

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"handler": "other"}, "getThing has no handler"),
            ({"handler": "other"}, "get_thing is no operation of the contract"),
            ({"permission": None}, "getThing names no permission"),
            ({"permission": "things:dream"}, "getThing needs things:dream, which no role grants"),
        ],
    )
    def test_code_that_differs_from_the_contract_does_not_start(self, changes: dict[str, Any], problem: str) -> None:
        class Things:
            async def get_thing(self) -> Any: ...

        async def nobody(_request: Request) -> Any: ...

        HttpApplication([self.operation()], [Things()], nobody, 1)
        with pytest.raises(ContractMismatchError, match=problem):
            HttpApplication([self.operation(**changes)], [Things()], nobody, 1)

    def test_two_handlers_of_one_operation_do_not_start(self) -> None:
        class Things:
            async def get_thing(self) -> Any: ...

        async def nobody(_request: Request) -> Any: ...

        with pytest.raises(ContractMismatchError, match="get_thing has two handlers"):
            HttpApplication([self.operation()], [Things(), Things()], nobody, 1)
