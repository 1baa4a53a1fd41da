"""Logs as a person reads them: every writer's form, hostile bytes, the order of time, rotation while following."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from devstack.commands.logs import follow_events
from devstack.layout import Layout
from devstack.logs import files, output
from devstack.logs.events import Event, Level, Parser
from devstack.logs.selection import Selection, parse_level, parse_since
from devstack.logs.view import Lines, as_json, printable, progress

from devstack import state

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
PLAIN = Lines(colour=False, zone=UTC)


def parsed(process: str, *lines: str) -> list[Event]:
    parser = Parser(process, NOON)
    return [event for line in lines if (event := parser.parse(line)) is not None]


def request(seconds: float = 0, **fields: Any) -> str:
    """An access line as Envoy writes it."""
    moment = (NOON + timedelta(seconds=seconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    standard = {
        "time": moment, "level": "info", "event": "request", "service": "edge", "environment": "development",
        "version": "0.1.0", "instance_id": "edge", "method": "GET", "path": "/v1/products", "status": 200,
        "grpc_status": None, "flags": "-", "details": "via_upstream", "duration_ms": 12, "request_id": "abc-1",
    }  # fmt: skip
    return json.dumps(standard | fields)


def shown(process: str, line: str) -> str:
    (event,) = parsed(process, line)
    return PLAIN.line(event, NOON)


class TestForms:
    def test_a_request_is_one_line_with_its_time_service_level_method_path_status_time_and_id(self) -> None:
        assert shown("edge", request(0.25, path="/v1/orders", method="POST", status=201)).split() == [
            "12:00:00.250", "edge", "info", "POST", "/v1/orders", "201", "12", "ms", "abc-1",
        ]  # fmt: skip

    def test_a_call_has_its_grpc_code_by_name(self) -> None:
        line = shown("order-2", request(path="/order.v1.OrderService/GetOrder", method="POST", grpc_status=5))
        assert " order-2 " in line
        assert " NOT_FOUND " in line

    @pytest.mark.parametrize("traced", [
        {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"},
        {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    ])  # fmt: skip
    def test_the_ids_of_trace_and_span_are_shown_on_demand(self, traced: dict[str, Any]) -> None:
        (event,) = parsed("order", request(**traced))
        assert "4bf92f" not in PLAIN.line(event, NOON)
        line = Lines(colour=False, zone=UTC, ids=True).line(event, NOON)
        assert "trace_id=4bf92f3577b34da6a3ce929d0e0e4736" in line
        assert ("span_id=00f067aa0ba902b7" in line) is ("traceparent" in traced)
        assert json.loads(as_json(event))["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"

    @pytest.mark.parametrize("odd", [None, "", "-", 5, "00-xyz", ["00"], "\x1b[2J"])
    def test_what_is_no_trace_context_is_no_trace(self, odd: object) -> None:
        (event,) = parsed("order", request(traceparent=odd))
        assert "trace_id" not in event.fields

    def test_what_envoy_answered_itself_says_why(self) -> None:
        assert shown("edge", request(status=503, flags="UF", details="upstream_reset")).endswith("UF upstream_reset")

    @pytest.mark.parametrize(
        ("fields", "level"),
        [
            ({"status": 404}, Level.INFO),
            ({"status": 500}, Level.ERROR),
            ({"status": 200, "grpc_status": 14}, Level.ERROR),
            ({"status": 200, "grpc_status": 5}, Level.INFO),
        ],
    )
    def test_a_request_that_failed_through_our_fault_is_an_error(self, fields: dict[str, int], level: Level) -> None:
        assert parsed("edge", request(**fields))[0].level == level

    def test_a_services_event_has_its_fields_and_its_trace_below(self) -> None:
        line = json.dumps({
            "event": "unexpected error", "level": "error", "time": "2026-01-31T12:00:01Z", "service": "bff",
            "operation": "getOrder", "request_id": "r-9", "exception": "Traceback:\n  x = \x1b[2J\nValueError",
        })  # fmt: skip
        first, *rest = shown("bff", line).split("\n")
        assert first == "12:00:01.000 bff          error    unexpected error operation=getOrder r-9"
        assert [row.strip() for row in rest] == ["Traceback:", "x = \\x1b[2J", "ValueError"]

    def test_postgres(self) -> None:
        events = parsed(
            "postgres",
            "2026-01-31 12:00:00.100 UTC [7] LOG:  database system is ready to accept connections",
            '2026-01-31 12:00:00.200 UTC [9] order_service@orderdb ERROR:  relation "nope" does not exist at character 15',
            "2026-01-31 12:00:00.200 UTC [9] order_service@orderdb STATEMENT:  SELECT *",
            "\tFROM nope",
            "2026-01-31 12:00:00.300 UTC [10] [unknown]@[unknown] FATAL:  terminating connection",
        )
        assert [event.level for event in events] == [Level.INFO, Level.ERROR, Level.ERROR, Level.ERROR, Level.ERROR]
        assert events[1].fields["user"] == "order_service@orderdb"
        assert events[1].time == NOON + timedelta(milliseconds=200)
        assert (events[3].continues, events[3].time) == (True, events[2].time)
        assert PLAIN.line(events[2], NOON).startswith("12:00:00.200 postgres     error    statement: SELECT *")
        assert PLAIN.line(events[3], NOON).strip() == "FROM nope"

    def test_valkey(self) -> None:
        (event,) = parsed("valkey", "42:M 2026-01-31T13:00:00.500+01:00 # WARNING Memory overcommit must be enabled!")
        assert (event.level, event.time) == (Level.WARNING, NOON + timedelta(milliseconds=500))
        assert event.text == "WARNING Memory overcommit must be enabled!"

    def test_nats_writes_dates_with_slashes(self) -> None:
        (event,) = parsed(
            "nats", "[42] 2026/11/26 12:00:00.500000 [ERR] JetStream out of File resources, will be DISABLED"
        )
        assert (event.time, event.level) == (datetime(2026, 11, 26, 12, 0, 0, 500000, UTC), Level.ERROR)
        assert (event.text, event.fields) == ("JetStream out of File resources, will be DISABLED", {"pid": "42"})

    def test_valkey_before_it_has_read_how_to_write_times(self) -> None:
        (event,) = parsed("valkey-cache", "42:M 26 Nov 2026 12:00:00.500 # WARNING Memory overcommit must be enabled!")
        assert event.time == datetime(2026, 11, 26, 12, 0, 0, 500_000).astimezone(UTC)
        assert (event.level, event.text) == (Level.WARNING, "WARNING Memory overcommit must be enabled!")
        (odd,) = parsed("valkey", "42:M 99 Nov 2026 12:00:00.500 # WARNING")
        assert odd.text.startswith("42:M 99 Nov")

    def test_the_codec_that_we_have_chosen_is_no_warning_of_anything_else(self) -> None:
        text = "field 'envoy.config.core.v3.Http2ProtocolOptions.use_oghttp2_codec' is marked as work-in-progress. API"
        (codec,) = parsed("edge", json.dumps({"level": "warning", "event": text}))
        (other,) = parsed("edge", json.dumps({"level": "warning", "event": text.replace("use_oghttp2_codec", "other")}))
        assert [Selection().shows(event) for event in (codec, other)] == [False, True]
        assert Selection(routine=True).shows(codec)

    def test_envoys_own(self) -> None:
        line = '{"time":"2026-01-31T07:00:00.250-05:00","level":"warning","logger":"envoy.config","event":"a \\"b\\""}'
        assert shown("edge", line) == '12:00:00.250 edge         warning  a "b" logger=envoy.config'

    def test_a_line_in_no_known_form_is_an_event_at_the_time_of_the_one_before(self) -> None:
        events = parsed(
            "bff", "Traceback (most recent call last):", request(5), '  File "x.py"', "", "{]", '{"time": 7}'
        )
        seconds = [(event.time - NOON).total_seconds() for event in events]
        assert seconds == [0, 5, 5, 5, 5]
        assert (events[0].level, events[2].text) == (Level.WARNING, '  File "x.py"')

    @pytest.mark.parametrize(
        "line",
        [
            "{" * 100_000, "[1]", "{}", '{"event": 7, "level": [], "time": {}}', '{"event": null}',
            request(path=["a"], method={}, status="x", grpc_status=[], flags=[], duration_ms={}, request_id=5),
            request(status=10**400, grpc_status=-1), '{"time": "9999-12-31T23:59:59-23:59", "event": "x"}',
            '{"time": "0001-01-01T00:00:00+23:59", "event": "\\ud800"}', "\x00", "\\", "\udcff",
            "2026-99-99 12:00:00.200 UTC [9] LOG:  x",
        ],
    )  # fmt: skip
    def test_nothing_that_a_log_can_hold_is_a_fault_of_the_reader(self, line: str) -> None:
        for process in ("edge", "postgres", "valkey"):
            for event in parsed(process, line):
                Selection(request_id="a").shows(event)
                assert PLAIN.line(event, NOON).isprintable()
                assert json.loads(as_json(event)).keys() >= {"time", "level", "service", "process", "event"}


class TestHostileBytes:
    HOSTILE = "/\x1b]0;owned\x07\x1b[2J\r\nfake\x9b31m\u202egnp\u2028\x00\x7f"

    def test_no_escape_sequence_reaches_the_terminal(self) -> None:
        for event in (
            *parsed("edge", request(path=self.HOSTILE, request_id=self.HOSTILE, method=self.HOSTILE, details=self.HOSTILE)),
            *parsed("bff", json.dumps({"event": self.HOSTILE, self.HOSTILE: self.HOSTILE, "exception": self.HOSTILE})),
            *parsed("postgres", f"2026-01-31 12:00:00.300 UTC [10] a@b ERROR:  {self.HOSTILE.replace(chr(10), '')}"),
            *parsed(self.HOSTILE, self.HOSTILE),
        ):  # fmt: skip
            assert all(row.isprintable() for row in PLAIN.line(event, NOON).split("\n"))
            assert "\\x1b]0;owned\\x07" in PLAIN.line(event, NOON)
            text = as_json(event)
            assert text.isascii()
            assert text.isprintable()

    def test_colours_are_the_only_escapes(self) -> None:
        (event,) = parsed("edge", request(path=self.HOSTILE))
        coloured = Lines(colour=True, zone=UTC).line(event, NOON)
        assert "\x1b[" in coloured
        assert re.sub("\x1b\\[[0-9;]+m", "", coloured) == PLAIN.line(event, NOON)

    def test_letters_of_every_script_stay(self) -> None:
        assert printable("Grüße, 世界, привет") == "Grüße, 世界, привет"

    def test_a_log_that_is_not_utf8_is_shown_with_escapes(self, tmp_path: Path) -> None:
        (tmp_path / "bff.log").write_bytes(b"\xff\xfe broken\n")
        (event,) = files.read(tmp_path, Selection())
        assert PLAIN.line(event, NOON).endswith("\\xff\\xfe broken")

    def test_progress_is_harmless(self) -> None:
        assert progress('{"event": "order: ready"}\n') == "  order        ready"
        assert progress("\x1b[2Jboom\n") == "  \\x1b[2Jboom"


class TestSelection:
    def test_what_the_platform_asks_itself_is_shown_on_request_or_when_it_failed(self) -> None:
        for fields in (
            {"path": "/.well-known/jwks.json"},
            {"path": "/healthz/ready"},
            {"path": "/grpc.health.v1.Health/Check", "grpc_status": 0},
            {"path": "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", "grpc_status": 0},
            {"path": "/opentelemetry.proto.collector.logs.v1.LogsService/Export", "grpc_status": 0},
        ):
            (routine,) = parsed("bff", request(0, **fields))
            (failed,) = parsed("bff", request(0, **fields, status=503))
            assert not Selection().shows(routine)
            assert Selection(routine=True).shows(routine)
            assert Selection().shows(failed)

    def test_by_service_level_time_and_request(self) -> None:
        (event,) = parsed("order-2", request(60, status=500))
        assert Selection(frozenset({"order"})).reads("order-2")
        assert Selection(frozenset({"order-2"})).reads("order-2")
        assert not Selection(frozenset({"order-2"})).reads("order")
        assert Selection(level=Level.ERROR).shows(event)
        assert not Selection(level=Level.CRITICAL).shows(event)
        assert Selection(since=NOON + timedelta(seconds=60)).shows(event)
        assert not Selection(since=NOON + timedelta(seconds=61)).shows(event)
        assert Selection(request_id="abc").shows(event)
        assert not Selection(request_id="abd").shows(event)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("90s", "2026-01-31T11:58:30Z"),
            ("10m", "2026-01-31T11:50:00Z"),
            ("2h", "2026-01-31T10:00:00Z"),
            ("1d", "2026-01-30T12:00:00Z"),
            ("2026-01-31T14:05:00+02:00", "2026-01-31T12:05:00Z"),
            ("2026-01-31T14:05:00Z", "2026-01-31T14:05:00Z"),
        ],
    )
    def test_since(self, text: str, expected: str) -> None:
        assert parse_since(text, NOON) == datetime.fromisoformat(expected)

    def test_a_time_of_day_is_today_here(self) -> None:
        now = datetime.now().astimezone()
        assert parse_since("00:00", now) == now.replace(hour=0, minute=0, second=0, microsecond=0)

    @pytest.mark.parametrize("text", ["", "soon", "5", "-5m", "25:00", "5 m", "9999999d", "999999d", "٣m"])
    def test_what_is_no_time_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no time"):
            parse_since(text, NOON)

    def test_an_unknown_level_is_refused_with_those_that_there_are(self) -> None:
        assert parse_level("Warning") == Level.WARNING
        with pytest.raises(ValueError, match="debug, info, warning, error, critical"):
            parse_level("loud")


class TestOrder:
    def test_logs_are_merged_by_time_older_parts_and_lines_out_of_order_included(self, tmp_path: Path) -> None:
        def write(name: str, *seconds: float) -> None:
            (tmp_path / name).write_text(
                "".join(request(s, request_id=str(s)) + "\n" for s in seconds), encoding="utf-8"
            )

        write("edge.log.1", 1, 4)
        # A request's line has the time at which it began and is written when it has ended.
        write("edge.log", 9, 7, 200)
        write("bff.log", 2, 5, 8)
        write("order-2.log", 3)
        seconds = [float(event.request_id) for event in files.read(tmp_path, Selection())]
        assert seconds == [1, 2, 3, 4, 5, 7, 8, 9, 200]

    def test_the_lines_of_one_message_stay_together(self, tmp_path: Path) -> None:
        (tmp_path / "postgres.log").write_text(
            "2026-01-31 12:00:01.000 UTC [9] ERROR:  a\n\tb\n\tc\n", encoding="utf-8"
        )
        (tmp_path / "valkey.log").write_text("9:M 2026-01-31T12:00:01.000Z * z\n", encoding="utf-8")
        assert [event.text for event in files.read(tmp_path, Selection())] == ["a", "b", "c", "z"]


class Following:
    """A follower in a thread of its own, and what it has shown."""

    def __init__(self, directory: Path, positions: dict[str, int] | None = None, **selection: Any) -> None:
        self.shown: list[str] = []
        self._running = True
        known = files.ends(directory) if positions is None else positions
        events = files.follow(directory, Selection(**selection), known, lambda: self._running)
        self._thread = threading.Thread(target=lambda: self.shown.extend(event.request_id for event in events))
        self._thread.start()

    def end(self) -> list[str]:
        self._running = False
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.shown

    def wait_for(self, request_id: str) -> None:
        give_up = time.monotonic() + 20
        while request_id not in self.shown:
            assert time.monotonic() < give_up, self.shown
            time.sleep(0.01)


def append(path: Path, *lines: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "edge.log"
    append(path, request(0, request_id="old"))
    return path


class TestFollowing:
    def test_lines_of_several_logs_are_merged_by_time_and_the_end_of_the_stack_ends_it(self, log: Path) -> None:
        following = Following(log.parent)
        append(log, request(2, request_id="2"))
        # A log that begins while it is followed.
        append(log.with_name("bff.log"), request(1, request_id="1"), request(3, request_id="3"))
        following.wait_for("3")
        with log.open("a", encoding="utf-8") as file:
            file.write(request(4, request_id="4"))
        assert following.end() == ["1", "2", "3", "4"]

    def test_a_line_that_is_written_in_two_parts_is_one(self, log: Path) -> None:
        following = Following(log.parent)
        line = request(1, request_id="1")
        with log.open("a", encoding="utf-8") as file:
            file.write(line[:50])
            file.flush()
            time.sleep(0.3)
            file.write(line[50:] + "\n")
        following.wait_for("1")
        assert following.end() == ["1"]

    def test_reading_and_then_following_shows_everything_once(self, log: Path) -> None:
        line = request(2, request_id="2")
        with log.open("a", encoding="utf-8") as file:
            file.write(request(1, request_id="1") + "\n" + line[:50])
        positions: dict[str, int] = {}
        read = [event.request_id for event in files.read(log.parent, Selection(), positions)]
        append(log, line[50:])
        following = Following(log.parent, positions)
        following.wait_for("2")
        assert read + following.end() == ["old", "1", "2"]

    def test_rotation_loses_and_repeats_nothing(self, log: Path) -> None:
        append(log, *(request(0, request_id=f"before-{n}") for n in range(50)))
        following = Following(log.parent)
        append(log, request(1, request_id="1"))
        following.wait_for("1")
        # As the supervisor does it; what was written in the moment before is in the copy only.
        append(log, request(2, request_id="2"))
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)
        append(log, request(3, request_id="3"))
        following.wait_for("3")
        assert following.end() == ["1", "2", "3"]

    def test_a_log_that_was_replaced_is_followed(self, log: Path) -> None:
        following = Following(log.parent)
        append(log, request(1, request_id="1"))
        following.wait_for("1")
        other = log.with_name("new")
        append(other, request(2, request_id="2"))
        other.replace(log)
        following.wait_for("2")
        assert following.end() == ["1", "2"]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class TestOutput:
    @pytest.mark.parametrize(
        ("environment", "coloured"),
        [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)],
    )
    def test_a_terminal_gets_lines_in_colour_unless_it_wants_none(
        self, environment: dict[str, str], coloured: bool
    ) -> None:
        out = Terminal()
        output.write(parsed("edge", request()), out, json_lines=False, environment=environment)
        assert "GET    /v1/products" in out.getvalue()
        assert ("\x1b[" in out.getvalue()) == coloured

    @pytest.mark.parametrize(("out", "json_lines"), [(StringIO(), False), (Terminal(), True)])
    def test_a_pipe_gets_json_lines_and_a_terminal_on_request(self, out: StringIO, json_lines: bool) -> None:
        events = parsed("order-2", request(status=503, service="order")) + parsed("postgres", "plain text")
        output.write(events, out, json_lines=json_lines, environment={})
        first, second = map(json.loads, out.getvalue().splitlines())
        assert first["time"] == "2026-01-31T12:00:00.000000Z"
        assert (first["process"], first["service"], first["level"]) == ("order-2", "order", "error")
        assert first["status"] == 503
        assert second.keys() == {"time", "level", "process", "service", "event"}

    def test_times_are_the_readers_with_the_date_when_it_is_another_day(self) -> None:
        (event,) = parsed("edge", request())
        lines = Lines(colour=False, zone=timezone(timedelta(hours=13)))
        assert lines.line(event, NOON).startswith("01:00:00.000 ")
        assert lines.line(event, NOON + timedelta(days=1)).startswith("2026-02-01 01:00:00.000 ")


@pytest.mark.parametrize("opened", [pty.openpty, os.pipe])
def test_following_ends_with_whom_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[[], tuple[int, int]]
) -> None:
    """A closed terminal need not say so by a signal, and a quiet stack writes nothing that could fail."""
    theirs, ours = opened()
    answers = iter([True, True])
    monkeypatch.setattr(state, "is_running", lambda _: next(answers))
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    with os.fdopen(ours, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert output.is_read(out)
        os.close(theirs)
        follow_events(layout, Selection(), {})
