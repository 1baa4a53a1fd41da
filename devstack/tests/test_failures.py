"""What a failed start says, by what its processes have written: the cause first, a remedy that fits, no data lost."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest
from devstack.failures import StartupError, explained, lines_since, of_process
from devstack.secrets import load_or_create

POSTGRES = "2026-11-26 14:00:00.000 UTC [7] "

# What is written, what is said of it first, and a piece of the remedy.
KNOWN = [
    (
        "postgres",
        f'{POSTGRES}FATAL:  lock file "postmaster.pid" already exists\nHINT:  Is another postmaster (PID 41) running?',
        'lock file "postmaster.pid" already exists',
        "end the process that its line names",
    ),
    (
        "postgres",
        f'{POSTGRES}FATAL:  could not write lock file "postmaster.pid": No space left on device',
        "could not write lock file",
        "make room on the disk",
    ),
    (
        "postgres",
        f'{POSTGRES}FATAL:  could not open file "global/pg_control": Permission denied',
        "could not open file",
        "let this user read and write it",
    ),
    (
        "postgres",
        f"{POSTGRES}LOG:  starting\n{POSTGRES}PANIC:  could not locate a valid checkpoint record at 0/1",
        "could not locate a valid checkpoint record",
        "restore a backup",
    ),
    (
        "postgres",
        f"{POSTGRES}FATAL:  could not map anonymous shared memory: Cannot allocate memory",
        "could not map anonymous shared memory",
        "uses memory",
    ),
    (
        "postgres",
        "/v/postgres: error while loading shared libraries: libssl.so.3: cannot open shared object file",
        "error while loading",
        "make the environment anew",
    ),
    (
        "valkey",
        "9:M 26 Nov 2026 14:00:00.000 # Bad file format reading the append only file: make a backup",
        "Bad file format reading the append only file",
        "restore a backup",
    ),
    (
        "valkey-cache",
        "9:M 26 Nov 2026 14:00:00.000 # Failed opening Unix socket: bind: Permission denied",
        "Failed opening Unix socket",
        "let this user read and write it",
    ),
    (
        "edge",
        '{"level":"critical","logger":"envoy.main","event":"error initializing config: cannot bind \'127.0.0.1:8080\': '
        'Address already in use"}',
        "error initializing config",
        "stop what listens there",
    ),
    (
        "user",
        '{"level":"info","event":"starting"}\n{"level":"error","event":"startup failed","error":"CURSOR_SECRET: too short"}',
        "startup failed: CURSOR_SECRET: too short",
        "the lines above say more",
    ),
    ("order", "inotify_init1: Too many open files", "ended with status 1", "too many files are watched"),
    (
        "bff",
        '{"level":"error","event":"startup failed","error":"the service does not implement its contract: getX has no handler"}',
        "startup failed: the service does not implement its contract: getX has no handler",
        "`make lint` says the same",
    ),
    ("bff", "", "ended with status 1", "the lines above say more"),
]


@pytest.mark.parametrize(("process", "written", "said", "remedy"), KNOWN)
def test_the_cause_comes_first_and_the_remedy_fits(process: str, written: str, said: str, remedy: str) -> None:
    text = explained(of_process(process, "ended with status 1", written))
    assert text.startswith(f"{process}: {said}")
    what_to_do = text.rpartition("What to do: ")[2]
    assert remedy in what_to_do
    assert ("backend reset" in what_to_do) == ("restore a backup" in what_to_do)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "let this user"),
        (errno.EMFILE, "ulimit"),
        (errno.EROFS, "--data-dir"),
    ],
)
def test_what_the_system_refuses_has_its_remedy_as_well(number: int, remedy: str) -> None:
    text = explained(OSError(number, os.strerror(number), "/data/state.new"))
    assert text.startswith(f"backend: {os.strerror(number)}: /data/state.new\nWhat to do: ")
    assert remedy in text
    assert "reset" not in text


def test_a_file_that_is_missing_is_the_environments_only_when_it_lies_there() -> None:
    for path, remedy in (("/proc/x", "--data-dir"), (f"{sys.prefix}/bin/envoy", "rm -rf .venv")):
        assert remedy in explained(FileNotFoundError(errno.ENOENT, "No such file or directory", path))


def test_what_envoy_says_at_every_start_is_not_among_the_last_lines() -> None:
    always = "Http2ProtocolOptions.use_oghttp2_codec' is marked as work-in-progress. API features"
    jwks = "Jwks async fetching url=https://bff/.well-known/jwks.json: failed"
    text = explained(of_process("edge", "ended", f'{{"event":"{always}"}}\n{{"event":"{jwks}"}}\n{{"event":"why"}}'))
    assert "why" in text
    assert "work-in-progress" not in text
    assert "Jwks" not in text


def test_the_last_lines_are_readable() -> None:
    trace = 'Traceback (most recent call last):\n  File "main.py", line 7\nConfigurationError: no'
    lines = [
        {"time": "2026-11-26T14:00:00Z", "level": "info", "logger": "launch", "event": "starting"},
        {"time": "2026-11-26T14:00:01Z", "level": "error", "event": "startup failed", "error": "no", "stack": trace},
        {"time": "2026-11-26T14:00:02Z", "level": "error", "event": "Failed to initialize\nRuntimeError: no"},
    ]
    text = explained(of_process("bff", "ended", "".join(f"{json.dumps(line)}\n" for line in lines)))
    said, _, shown = text.partition("--- the last lines of bff's log\n")
    assert said == "bff: startup failed: no (ended)\n"
    assert [row.strip() for row in shown.partition("\n---\n")[0].splitlines()[2:]] == [
        "Traceback (most recent call last):",
        'File "main.py", line 7',
        "ConfigurationError: no",
        shown.splitlines()[5].strip(),
        "RuntimeError: no",
    ]
    assert "{" not in text
    assert "`backend logs bff`" in text


def test_each_of_several_failing_services_has_its_own_lines() -> None:
    failures = [of_process(name, "ended", f'{{"level":"error","event":"{name} cannot"}}') for name in ("user", "order")]
    text = explained(ExceptionGroup("start", failures))
    for name in ("user", "order"):
        assert f"{name}: {name} cannot (ended)\n--- the last lines of {name}'s log\n" in text


def test_only_the_lines_of_this_run_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "user.log"
    assert lines_since(log, 0) == ""
    log.write_text("of the run before\n", encoding="utf-8")
    begins = log.stat().st_size
    assert lines_since(log, begins) == ""
    with log.open("a", encoding="utf-8") as file:
        file.write("of this one\n")
    assert lines_since(log, begins) == "of this one\n"
    # A log over its limit begins anew.
    log.write_text("newer\n", encoding="utf-8")
    assert lines_since(log, begins) == "newer\n"


def test_a_secret_that_a_server_repeats_is_hidden_from_the_screen(tmp_path: Path) -> None:
    made = load_or_create(tmp_path)
    line = f">>> 'user bff on >{made.valkey_of('bff')} resetchannels'"
    text = made.hidden_in(explained(StartupError("valkey", "ended", "look", line)))
    assert made.valkey_of("bff") not in text
    assert "user bff on >*** resetchannels" in text
    # What people have to type is shown.
    assert made.hidden_in(made["admin_password"]) == made["admin_password"]
