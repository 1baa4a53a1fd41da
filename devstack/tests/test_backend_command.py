"""The `backend` command as a person uses it, on stacks of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest
from chassis.private_files import write_private
from devstack.keys import EDGE_SECONDS
from devstack.layout import ROOT, Layout
from devstack.options import Options
from devstack.privileges import die_with_parent
from devstack.secrets import Secrets, load_or_create, made_anew, rotation_journal
from devstack.state import ProcessState, StackState
from mesh.policies import parse_origins
from mesh.topology import PORTS_EACH
from typer.testing import CliRunner

from conftest import BACKEND, Platform, backend, free_port_offset, this_run
from devstack import cli, postgres


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Everything whose command line names this data directory, or that works in it."""
    return [
        p
        for p in psutil.process_iter(["cmdline", "cwd"])
        if any(str(data_dir) in part for part in [*(p.info["cmdline"] or []), p.info["cwd"] or ""])
    ]


def demo_orders(status: dict[str, Any]) -> dict[str, str]:
    """The demo customer's orders and where they stand, once the sweep has expired the one that is due."""
    account = status["demo"]["customer"]
    with httpx.Client(base_url=status["endpoints"]["public"], timeout=30) as http:
        token = http.post("/v1/auth/login", json=account).json()["access_token"]
        for _ in range(100):
            items = http.get("/v1/orders", headers={"authorization": f"Bearer {token}"}).json()["items"]
            found = {order["id"]: order["status"] for order in items}
            if "expired" in found.values():
                return found
            time.sleep(0.1)
    raise AssertionError("no order expired")


DEMO_ORDERS = ["cancelled", "delivered", "expired", "paid", "pending_payment", "refunded", "shipped"]


def demo_process(data_dir: Path) -> psutil.Process | None:
    """What loads the demo data, while it does."""
    return next((p for p in processes_of(data_dir) if "devstack.demo" in (p.info["cmdline"] or [])), None)


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the `backend` command prints on a terminal."""
    ours, theirs = pty.openpty()
    with closing_fd(ours):
        with closing_fd(theirs):
            command = subprocess.Popen(
                [str(BACKEND), *arguments],
                stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", **environment},
            )  # fmt: skip
        printed = b""
        # The read fails with EIO once nobody has the other end open.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 65536):
                printed += chunk
        assert command.wait() == 0
    return printed.decode()


@contextlib.contextmanager
def closing_fd(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def check_logs(status: dict[str, Any], where: tuple[str, str]) -> None:
    """All processes by time; one request by its id; lines on a terminal, JSON in a pipe; nothing of a client's raw."""
    answer = httpx.get(f"{status['endpoints']['public']}/v1/products?limit=1")
    request_id = answer.headers["x-request-id"]
    httpx.get(f"{status['endpoints']['public']}/v1/%1b%5b2Jnone")
    give_up = time.monotonic() + 20
    while len(found := backend("logs", "--request-id", request_id, *where).stdout.splitlines()) < 3:
        assert time.monotonic() < give_up, found
    assert [json.loads(line)["process"] for line in found] == ["edge", "bff", "order"]
    events = [json.loads(line) for line in backend("logs", *where).stdout.splitlines()]
    assert {event["process"] for event in events} == {
        "postgres", "valkey", "valkey-cache", "limiter", "user", "order", "bff", "edge", "console", "nats",
        "notification", "mailbox", "supervisor", "audit",
    }  # fmt: skip
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert not any("RateLimitService" in event.get("path", "") for event in events)
    assert "RateLimitService" in backend("logs", "limiter", "--all", *where).stdout
    nothing = backend("logs", "--since", "1s", "--level", "critical", *where)
    assert (nothing.stdout, nothing.stderr) == ("", "no such event\n")
    assert backend("logs", "--request-id", "zzz", *where).stderr == "nothing of request 'zzz'\n"
    assert not any("work-in-progress" in event["event"] for event in events)
    assert backend("logs", "--level", "loud", *where, check=False).returncode == 2
    shown = on_a_terminal("logs", "--request-id", request_id, *where)
    assert "\x1b[32m200\x1b[0m" in shown
    plain = on_a_terminal("logs", *where, NO_COLOR="1")
    assert re.search(
        rf"^\d\d:\d\d:\d\d\.\d{{3}} edge +info +GET +/v1/products +200 +\d+ ms {request_id}", plain, re.MULTILINE
    )
    assert "\x1b" not in plain
    assert plain.replace("\r\n", "").isprintable()


def check_identity(status: dict[str, Any], where: tuple[str, str]) -> None:
    """An administrator is made; a signing key is revoked: its tokens are refused at once, new ones are had with what is left."""

    def create(password: str, email: str = "root@example.com") -> subprocess.CompletedProcess[str]:
        command = [str(BACKEND), "admin", "create", email, "--name", "Root", *where]
        return subprocess.run(
            command, input=password + "\n", capture_output=True, encoding="utf-8", check=False, timeout=60
        )

    assert create("qwertyuiop").returncode == 1
    assert (create("").returncode, create("").stderr) == (1, "no password was given\n")
    made = create("a password of root's own")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip().endswith("root@example.com admin")
    again = create("another password of root's")
    assert (again.returncode, "its password is what it was" in again.stdout) == (0, True)
    customer = create("a password of root's own", status["demo"]["customer"]["email"])
    assert customer.returncode == 1
    assert "is registered already, without the role admin" in customer.stderr
    assert re.search(r'PATCH /v1/admin/users/[0-9a-f-]{36} \{"roles": \["admin", "customer"\]', customer.stderr)
    account = {"email": "root@example.com", "password": "a password of root's own"}
    with httpx.Client(base_url=status["endpoints"]["public"], timeout=30) as http:
        pair = http.post("/v1/auth/login", json=account).json()
        old = {"authorization": f"Bearer {pair['access_token']}"}
        assert http.get("/v1/admin/users?q=root", headers=old).status_code == 200
        # Everybody's tokens are not ended by a command typed too soon.
        assert backend("keys", "revoke", *where, check=False).returncode == 1
        assert http.get("/v1/admin/users?q=root", headers=old).status_code == 200
        assert "services refuse its tokens within a second" in backend("keys", "revoke", "--yes", *where).stdout
        assert backend("keys", "revoke", "unknown", *where, check=False).returncode == 2
        time.sleep(1.2)
        # The edge still knows the key; the BFF does not.
        assert http.get("/v1/admin/users?q=root", headers=old).status_code == 401
        renewed = http.post("/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]}).json()
        new = {"authorization": f"Bearer {renewed['access_token']}"}
        give_up = time.monotonic() + EDGE_SECONDS + 10
        while http.get("/v1/me", headers=new).status_code != 200:
            assert time.monotonic() < give_up
            time.sleep(0.5)
        assert http.get("/v1/me", headers=old).status_code == 401


def cut_off_a_rotation(data_dir: Path) -> Secrets:
    """New passwords have been decided on, and the superuser of PostgreSQL has its own; the new ones."""
    layout, old = Layout(data_dir), load_or_create(data_dir / "secrets")
    decided = made_anew(old)
    write_private(rotation_journal(layout.secrets), decided.as_json())

    async def alter() -> None:
        server = await asyncpg.connect(postgres.superuser_url(layout, old, "postgres"))
        await server.execute(f"ALTER ROLE postgres PASSWORD '{decided['postgres_password']}'")
        await server.close()

    asyncio.run(alter())
    return decided


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Where a stack may be; nothing of it is left, however the test ends."""
    yield tmp_path / "stack"
    backend("reset", "--yes", "--data-dir", str(tmp_path / "stack"), check=False)


def test_up_status_logs_restart_down_and_up_again(data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    offset = str(free_port_offset())
    said = data_dir.parent / "together"
    with said.open("w", encoding="utf-8") as output:
        together = subprocess.Popen(
            [str(BACKEND), "up", "--detach", "--die-with", str(this_run()), *where, "--port-offset", offset],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    first = backend("up", "--detach", *where, "--port-offset", offset)
    for line in ("postgres     ready", "order        starting; waits for: http://127.0.0.1:", "Demo accounts", "/docs"):
        assert line in first.stdout
    status = json.loads(backend("status", "--json", *where).stdout)
    assert status["ready"] is True
    assert {p["name"] for p in status["processes"]} == {
        "postgres",
        "valkey",
        "valkey-cache",
        "nats",
        "limiter",
        "user",
        "order",
        "bff",
        "edge",
        "console",
        "notification",
        "mailbox",
    }
    assert all(p["state"] == "ready" and psutil.pid_exists(p["pid"]) for p in status["processes"])
    assert status["endpoints"].keys() >= {
        "public",
        "public_tls",
        "bff_ops",
        "user_ops",
        "order_ops",
        "notification_ops",
        "edge_ops",
        "console",
    }
    assert set(status["demo"]) == {"admin", "support", "customer"}
    # Twice is harmless, at once as well.
    assert (together.wait(120), "The platform is ready." in said.read_text(encoding="utf-8")) == (0, True), (
        said.read_text(encoding="utf-8")
    )
    assert "already running" in backend("up", "--detach", *where, "--port-offset", offset).stdout
    assert first.stdout.count("@example.com") == backend("status", *where).stdout.count("@example.com") == 3
    check_logs(status, where)
    unknown = backend("logs", "nope", *where, check=False)
    assert (unknown.returncode, "there are:" in unknown.stdout) == (2, True)
    before = next(p["pid"] for p in status["processes"] if p["name"] == "user")
    assert "user restarted" in backend("restart", "user", *where).stdout
    after = json.loads(backend("status", "--json", *where).stdout)["processes"]
    assert next(p["pid"] for p in after if p["name"] == "user") != before
    # Only the owner may read what is secret.
    for path in (data_dir / "secrets").rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((data_dir / "state.json").stat().st_mode) == 0o600
    decided = cut_off_a_rotation(data_dir)
    backend("down", *where)
    ended = json.loads((data_dir / "state.json").read_text(encoding="utf-8"))
    assert (ended["ready"], ended["stopping"]) == (False, True)
    # There is nothing to follow; what there is to read is still shown.
    over = backend("logs", "-f", "--service", "supervisor", *where, check=False)
    assert (over.returncode, json.loads(over.stdout.splitlines()[-1])["event"][-9:]) == (3, ": stopped")
    assert "The stack does not run" in over.stderr
    assert processes_of(data_dir) == []
    assert backend("status", *where, check=False).returncode == 3
    backend("up", "--detach", *where, "--port-offset", offset)
    # A rotation of passwords that was cut off is finished before anybody uses one.
    assert load_or_create(data_dir / "secrets") == decided
    assert not rotation_journal(data_dir / "secrets").exists()
    assert json.loads(backend("status", "--json", *where).stdout)["demo"] == status["demo"]
    assert sorted(demo_orders(status).values()) == DEMO_ORDERS
    check_identity(status, where)
    backend("reset", "--yes", *where)
    assert not data_dir.exists()
    assert processes_of(data_dir) == []


def test_demo_data_that_cannot_be_loaded_take_nothing_down_and_loading_again_makes_nothing_twice(
    data_dir: Path,
) -> None:
    """Loading is killed in the middle, then done again four times: within any limit, and counted against nobody's."""
    where = ("--data-dir", str(data_dir), "--port-offset", str(free_port_offset()))
    starting = subprocess.Popen(
        [str(BACKEND), "up", "--detach", "--die-with", str(this_run()), *where], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, encoding="utf-8",
        env={**os.environ, "HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""},
    )  # fmt: skip
    found: list[psutil.Process] = []

    def loading() -> bool:
        found.extend(one for one in [demo_process(data_dir)] if one is not None)
        return bool(found)

    until(loading)
    found[0].suspend()
    status = json.loads(backend("status", "--json", *where[:2]).stdout)
    products = f"{status['endpoints']['public']}/v1/products?limit=1"

    def has_begun() -> bool:
        """The first product is there, the last is not."""
        found[0].resume()
        time.sleep(0.05)
        found[0].suspend()
        return bool(httpx.get(products).json()["items"])

    until(has_begun)
    found[0].kill()
    output, _ = starting.communicate(timeout=120)
    assert starting.returncode == 0
    assert "The platform is ready." in output
    assert (
        f"demo         not complete (ended with status -9); the next `./backend up --data-dir {data_dir}` goes on"
        in output
    )
    assert '"action":"user.registered"' in (data_dir / "logs" / "audit.log").read_text(encoding="utf-8")
    assert json.loads(backend("status", "--json", *where[:2]).stdout)["ready"] is True
    assert not (data_dir / "demo-loaded").exists()
    loads = [
        subprocess.run(
            [sys.executable, "-m", "devstack.demo", *where, "--options", "{}"],
            capture_output=True, encoding="utf-8", check=False, timeout=120,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert [(load.returncode, load.stderr) for load in loads] == [(0, "")] * 4
    assert sorted(demo_orders(status).values()) == DEMO_ORDERS
    login = httpx.post(f"{status['endpoints']['public']}/v1/auth/login", json=status["demo"]["customer"])
    # The test's own two logins are all that has been counted.
    assert login.headers["ratelimit-policy"] == '"login";q=20;w=60'
    assert login.headers["ratelimit"].startswith('"login";r=18;')


@pytest.mark.parametrize(("listener", "kind"), [("public", "tcp"), ("public_tls", "udp"), ("order-2_ops", "tcp")])
def test_a_port_in_use_is_named_with_its_owner_and_the_next_free_offset(
    tmp_path: Path, listener: str, kind: str
) -> None:
    data_dir = tmp_path / "stack"
    offset = free_port_offset()
    port = Layout(data_dir, offset).port(listener)
    with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", port))
        if kind == "tcp":
            taken.listen()
        failed = backend(
            "up", "--detach", "--data-dir", str(data_dir), "--port-offset", str(offset), "--replicas", "order=2",
            check=False,
        )  # fmt: skip
    assert failed.returncode == 1
    said = "(UDP) " if kind == "udp" else ""
    assert f"{listener}: port {port} {said}is in use by process {os.getpid()}" in failed.stdout
    proposed = re.search(
        rf"`\./backend up --port-offset (\d+) --detach --replicas order=2 --data-dir {data_dir}`", failed.stdout
    )
    assert proposed is not None
    assert int(proposed[1]) > offset
    assert int(proposed[1]) % PORTS_EACH == 0
    assert processes_of(data_dir) == []
    # What it has made for nothing is gone again.
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_data_directory_is_said_so_with_the_log_and_nothing_is_left_running(tmp_path: Path) -> None:
    data_dir = tmp_path / "stack"
    (data_dir / "postgres").mkdir(parents=True, mode=0o700)
    (data_dir / "postgres" / "PG_VERSION").write_text("18\n", encoding="utf-8")
    if os.geteuid() == 0:
        shutil.chown(data_dir / "postgres", "nobody")
    offset = str(free_port_offset())
    failed = backend("up", "--detach", "--data-dir", str(data_dir), "--port-offset", offset, check=False)
    assert failed.returncode == 1
    assert "\npostgres: could not access the server configuration file" in failed.stdout
    assert "(ended with status" in failed.stdout
    assert "the last lines of postgres's log" in failed.stdout
    assert "postgresql.conf" in failed.stdout
    assert f"`./backend reset --data-dir {data_dir}`" in failed.stdout
    assert processes_of(data_dir) == []
    status = backend("status", "--data-dir", str(data_dir), check=False)
    assert status.returncode == 3
    assert "The last start failed:\n\npostgres: could not access the server configuration file" in status.stdout


def test_data_of_another_postgresql_are_named_and_left_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "stack"
    (data_dir / "postgres").mkdir(parents=True, mode=0o700)
    (data_dir / "postgres" / "PG_VERSION").write_text("16\n", encoding="utf-8")
    offset = str(free_port_offset())
    failed = backend("up", "--detach", "--data-dir", str(data_dir), "--port-offset", offset, check=False)
    assert failed.returncode == 1
    assert "postgres: its data were written by PostgreSQL 16, and this is 18\n" in failed.stdout
    assert "pg_dump" in failed.stdout
    assert "reset" not in failed.stdout
    assert (data_dir / "postgres" / "PG_VERSION").read_text(encoding="utf-8") == "16\n"
    assert processes_of(data_dir) == []


def test_a_directory_too_deep_for_sockets_is_named_before_anything_starts(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    where = ("--data-dir", str(tmp_path / "stack"), "--port-offset", str(free_port_offset()))
    failed = backend("up", "--detach", *where, check=False, TMPDIR=str(deep))
    assert failed.returncode == 1
    assert f"sockets: {deep} is too long a path for Unix sockets" in failed.stdout
    assert "have TMPDIR name a shorter directory" in failed.stdout
    assert not (tmp_path / "stack" / "postgres").exists()
    assert processes_of(tmp_path / "stack") == []


def test_a_data_directory_that_cannot_be_made_or_read_is_named_without_a_stack_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for command in ("up", "status"):
        failed = backend(command, "--data-dir", str(tmp_path / "file" / "stack"), check=False)
        assert failed.returncode == 1
        assert failed.stderr.startswith("backend: Not a directory: ")
        assert "Traceback" not in failed.stdout + failed.stderr


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1800):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within three minutes")


def as_in_a_terminal() -> None:
    """Ends with this run, and takes a SIGHUP for what it is also when the run itself was started to outlive one."""
    die_with_parent(signal.SIGTERM)()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def following(output: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """A foreground `up`, once it follows the logs."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [str(BACKEND), "up", *arguments],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **environment},
            preexec_fn=as_in_a_terminal,  # noqa: PLW1509
        )  # fmt: skip
    until(lambda: process.poll() is not None or b"Following the logs" in output.read_bytes())
    assert process.poll() is None, output.read_text(encoding="utf-8")
    return process


def test_whatever_ends_a_foreground_up_ends_its_stack_and_who_joined_ends_nothing(tmp_path: Path) -> None:
    """Started from a shell whose variables would each break a service, if they came through."""
    stray = {
        "LC_ALL": "C", "LOG_LEVEL": "INFO", "ENVIRONMENT": "", "DATABASE_POOL_MAX": "zero",
        "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "",
    }  # fmt: skip
    data_dir = tmp_path / "stack"
    arguments = ("--data-dir", str(data_dir))
    owner = following(tmp_path / "owner", *arguments, "--port-offset", str(free_port_offset()), **stray)
    refused = backend("up", *arguments, "--replicas", "order=2", check=False)
    assert refused.returncode == 1
    assert "with another value of --replicas; " in refused.stdout
    # What was not said is not compared; what was said is, though it be the default.
    other = backend("up", *arguments, "--https-only", "--port-offset", "0", check=False)
    assert (other.returncode, "--port-offset" in other.stdout, "--https-only" in other.stdout) == (1, True, True)
    assert "demo" not in other.stdout
    guest = following(tmp_path / "guest", *arguments)
    guest.send_signal(signal.SIGTERM)
    assert guest.wait(120) == 0
    assert backend("status", *arguments, check=False).returncode == 0
    owner.send_signal(signal.SIGHUP)
    assert owner.wait(120) == 0
    assert processes_of(data_dir) == []
    assert backend("status", *arguments, check=False).returncode == 3


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGTERM, "making its data directory"),
        (signal.SIGHUP, "starting"),
        (signal.SIGKILL, "migrations: applied"),
    ],
)
def test_a_start_that_is_ended_leaves_nothing_and_so_does_one_that_is_killed(
    tmp_path: Path, number: signal.Signals, said: str
) -> None:
    data_dir = tmp_path / "stack"
    log = data_dir / "logs" / "supervisor.log"
    starting = subprocess.Popen(
        [str(BACKEND), "up", "--data-dir", str(data_dir), "--port-offset", str(free_port_offset())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=as_in_a_terminal,  # noqa: PLW1509
    )  # fmt: skip
    until(lambda: log.exists() and said in log.read_text(encoding="utf-8"))
    starting.send_signal(number)
    starting.wait(120)
    until(lambda: processes_of(data_dir) == [])


@pytest.mark.parametrize("killed", ["run", "worker"])
def test_what_a_test_run_has_started_ends_with_it_whatever_ends_it(tmp_path: Path, killed: str) -> None:
    """Killed as the kernel does it when memory is short: the run, or one of its workers, after which the run goes on."""
    data_dir, begun = tmp_path / "stack", tmp_path / "begun"
    test = tmp_path / "test_holding.py"
    test.write_text(
        f"""
import subprocess
import time
from pathlib import Path

from conftest import start_platform


def test_holding() -> None:
    start_platform(Path({str(data_dir)!r}), "--no-demo")
    started = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path({str(begun)!r}).write_text(str(started.pid))
    time.sleep(600)
""",
        encoding="utf-8",
    )
    (tmp_path / "pytest.ini").write_text("[pytest]", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    # Other plugins take seconds to load, and longer in the worker.
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ("-p", "xdist.plugin", "-p", "leftovers")
    command = [sys.executable, "-m", "pytest", *plugins, "-n", "1", "--max-worker-restart", "0", str(test)]
    with (tmp_path / "output").open("w", encoding="utf-8") as output:
        run = psutil.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    until(lambda: (begun.exists() and bool(begun.read_text(encoding="utf-8"))) or run.poll() is not None)
    assert begun.exists(), (tmp_path / "output").read_text(encoding="utf-8")
    (worker,) = [child for child in run.children() if "sys.stdin.readline" in " ".join(child.cmdline())]
    started = psutil.Process(int(begun.read_text(encoding="utf-8")))
    (worker if killed == "worker" else run).kill()
    run.wait(60)
    until(lambda: processes_of(data_dir) == [] and not started.is_running())


def test_two_stacks_run_side_by_side(platform: Platform, data_dir: Path) -> None:
    backend("up", "--detach", "--data-dir", str(data_dir), "--port-offset", str(free_port_offset()))
    other = json.loads(backend("status", "--json", "--data-dir", str(data_dir)).stdout)
    first = json.loads(backend("status", "--json", "--data-dir", str(platform.layout.data_dir)).stdout)
    for status in (first, other):
        assert all(process["state"] == "ready" for process in status["processes"])
        assert httpx.get(f"{status['endpoints']['public']}/v1/products?limit=1").status_code == 200
    assert first["endpoints"]["public"] != other["endpoints"]["public"]


@pytest.mark.parametrize(("command", "undone"), [(["reset", "--yes"], "deleted"), (["up", "--detach"], "started")])
def test_where_there_are_files_and_no_stack_nothing_is_touched(tmp_path: Path, command: list[str], undone: str) -> None:
    """`up` would take the rights of others from all of it, and make it a stack's, which `reset` deletes."""
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work", encoding="utf-8")
    thesis.chmod(0o644)
    refused = backend(*command, "--data-dir", str(tmp_path), check=False)
    said = f"{tmp_path} has files, and none of a stack; nothing was {undone}. Is it the right --data-dir?\n"
    assert (refused.returncode, refused.stdout) == (2, said)
    assert list(tmp_path.iterdir()) == [thesis]
    assert stat.S_IMODE(thesis.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "command", [["logs"], ["secrets"], ["status"], ["certs"], ["keys"], ["keys", "revoke"], ["restart", "x"]]
)
def test_where_there_is_no_stack_every_command_says_so(tmp_path: Path, command: list[str]) -> None:
    refused = backend(*command, "--data-dir", str(tmp_path), check=False)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith(f"there is no stack in {tmp_path}; `./backend up --data-dir {tmp_path}` makes one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", ["", "edge: it cannot"])
def test_a_start_under_way_is_waited_for_and_ends_as_it_does(tmp_path: Path, failure: str) -> None:
    layout = Layout(tmp_path / "stack", 100)
    layout.logs.mkdir(parents=True)
    (layout.logs / "supervisor.log").touch()
    where, said = ("--data-dir", str(layout.data_dir)), tmp_path / "said"
    with subprocess.Popen(["sleep", "120"], preexec_fn=die_with_parent(signal.SIGKILL)) as supervisor:  # noqa: PLW1509
        began, options = psutil.Process(supervisor.pid).create_time(), asdict(Options())
        now = StackState(supervisor.pid, began, 100, options=options, processes=[ProcessState("edge", "starting")])
        now.endpoints = layout.endpoints(())
        now.write(layout)
        status = backend("status", *where, check=False)
        assert (status.returncode, "starting" in status.stdout) == (4, True)
        for line in (f"data dir     {layout.data_dir}", "port offset  100", "up for       0:00:", "/docs\n"):
            assert line in status.stdout
        with said.open("w", encoding="utf-8") as output:
            joining = subprocess.Popen(
                [str(BACKEND), "up", "--detach", *where], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        until(lambda: "already starting; this waits for it" in said.read_text(encoding="utf-8"))
        assert joining.poll() is None
        now.ready, now.error = not failure, failure
        now.write(layout)
        if failure:
            supervisor.kill()
            supervisor.wait()
        assert joining.wait(60) == (1 if failure else 0)
        assert (failure or "The platform is ready.") in said.read_text(encoding="utf-8")
        supervisor.kill()


def test_a_stack_that_is_being_stopped_is_waited_for_and_started_again(tmp_path: Path) -> None:
    layout, said = Layout(tmp_path / "stack", free_port_offset()), tmp_path / "said"
    where = ("--data-dir", str(layout.data_dir), "--port-offset", str(layout.port_offset))
    layout.logs.mkdir(parents=True)
    with (
        subprocess.Popen(["sleep", "120"], preexec_fn=die_with_parent(signal.SIGKILL)) as supervisor,  # noqa: PLW1509
        socket.create_server(("127.0.0.1", layout.port("public"))),
        said.open("w", encoding="utf-8") as output,
    ):
        began = psutil.Process(supervisor.pid).create_time()
        now = StackState(supervisor.pid, began, layout.port_offset, stopping=True, endpoints=layout.endpoints(()))
        now.write(layout)
        assert backend("status", *where[:2], check=False).returncode == 4
        busy = backend("migrate", *where[:2], check=False)
        assert (busy.returncode, busy.stdout) == (3, "it is being stopped\n")
        starting = subprocess.Popen(
            [str(BACKEND), "up", "--detach", *where], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        until(lambda: "it is being stopped; this waits for its end" in said.read_text(encoding="utf-8"))
        assert starting.poll() is None
        supervisor.kill()
        supervisor.wait()
        # That it does start is seen by what stands in its way.
        assert starting.wait(120) == 1
    assert f"public: port {layout.port('public')} is in use" in said.read_text(encoding="utf-8")


def test_of_progress_only_whole_lines_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    progress = cli.Progress(layout)
    for written, shown in (
        ('{"event": "order: re', ""),
        ('ady"}\n{"event"', "  order        ready\n"),
        (': "x: y"}\n', "  x            y\n"),
    ):
        with (layout.logs / "supervisor.log").open("a", encoding="utf-8") as log:
            log.write(written)
        progress.show(lambda: True)
        assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    "option",
    ["--certificate-seconds", "--rate-limit-scale", "--valkey-memory-mib", "--cache-memory-mib", "--liveness-seconds"],
)
@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "1e300", "99999999999999999999"])
def test_a_number_that_nothing_could_run_with_is_refused_before_anything_is_made(
    tmp_path: Path, option: str, value: str
) -> None:
    refused = CliRunner().invoke(cli.app, ["up", "--data-dir", str(tmp_path / "stack"), option, value])
    assert (refused.exit_code, f"Invalid value for '{option}'" in refused.output) == (2, True)
    assert not (tmp_path / "stack").exists()


@pytest.mark.parametrize("command", [["up"], ["status"], ["down"], ["reset", "--yes"], ["logs"]], ids=lambda c: c[0])
def test_a_data_directory_whose_name_is_not_utf_8_is_refused_before_anything_is_made(
    tmp_path: Path, command: list[str]
) -> None:
    named = tmp_path / os.fsdecode(b"\xffdata")
    refused = CliRunner().invoke(cli.app, [*command, "--data-dir", str(named)])
    assert refused.exit_code == 2
    assert "not UTF-8" in refused.output
    assert not named.exists()


def test_help_is_whole_on_a_terminal_of_eighty_columns() -> None:
    """Every option can be typed as it is shown, and no sentence is cut off."""

    def check(*words: str) -> None:
        shown = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "80"}).output
        assert max(map(len, shown.splitlines())) <= 80
        assert "…" not in shown
        assert "..." not in shown.replace("[ARGS]...", "")
        for name in re.findall(r"^  ([a-z-]+)  ", shown.partition("Commands:")[2], re.MULTILINE):
            check(*words, name)

    check()


def test_usage_names_the_command_as_it_is_typed() -> None:
    refused = backend("up", "--nope", check=False)
    assert refused.stderr.startswith("Usage: ./backend up ")
    assert "Try './backend up --help' for help." in refused.stderr
    levels = backend("log-level", "order", "verbose", check=False)
    assert (levels.returncode, "'debug', 'info', 'warning', 'error'" in levels.stderr) == (2, True)
    # Completion is by the name: the shell finds it for a path to it, too. It is of the shell that the command is typed in,
    # and a shell that has only one thing to do becomes it.
    typed = ["bash", "-c", f"'{BACKEND}' --show-completion; true"]
    shown = subprocess.run(typed, capture_output=True, encoding="utf-8", check=True).stdout
    assert "complete -o default -F _backend_completion backend\n" in shown


def test_what_has_no_stack_is_down(tmp_path: Path) -> None:
    done = backend("down", "--data-dir", str(tmp_path))
    assert f"there is no stack in {tmp_path}" in done.stderr


def test_what_is_no_origin_is_refused(tmp_path: Path) -> None:
    refused = backend("up", "--data-dir", str(tmp_path / "stack"), "--cors-origin", "foo", check=False)
    assert (refused.returncode, "'foo' is no origin" in refused.stdout) == (2, True)
    assert not (tmp_path / "stack").exists()
    for text in ("*", "null", "https://a.example/", "https://u@a.example", "ftp://a.example", "a.example:443", ""):
        with pytest.raises(ValueError, match="is no origin"):
            parse_origins([text])
    origins = ["https://a.example", "http://127.0.0.1:5173", "http://[::1]:80", "http://localhost"]
    assert list(parse_origins(origins)) == origins


def test_an_offset_that_leaves_no_ports_is_refused(tmp_path: Path) -> None:
    refused = backend("up", "--data-dir", str(tmp_path), "--port-offset", "60000", check=False)
    assert refused.returncode == 2


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """The launcher in a clone that is prepared, in a directory with a space in its name, called through a link."""
    clone = tmp_path / "a clone"
    (clone / "tools").mkdir(parents=True)
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / "tools" / "bootstrap.py").write_text("", encoding="utf-8")
    (clone / ".venv" / "bin" / "backend").symlink_to(BACKEND)
    shutil.copy(ROOT / "backend", clone / "backend")
    link = tmp_path / "linked backend"
    link.symlink_to(clone / "backend")
    return link


def test_the_launcher_works_from_anywhere_and_messages_name_it_as_it_was_typed(launcher: Path) -> None:
    def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd="/",
            capture_output=True,
            encoding="utf-8",
            check=False,
            env={**os.environ, **environment},
            timeout=60,
        )

    told = run(str(launcher), "keys", "--data-dir", str(launcher.parent / "nothing"))
    assert told.returncode == 3
    assert f"`{launcher} up --data-dir {launcher.parent / 'nothing'}`" in told.stderr
    assert run(str(launcher), "--version").stdout == f"backend {version('backend-devstack')}\n"
    assert "`./backend up --data-dir " in backend("keys", "--data-dir", "/nothing", check=False).stderr
    completed = run(str(launcher), _BACKEND_COMPLETE="complete_bash", COMP_WORDS="./backend resta", COMP_CWORD="1")
    assert completed.stdout.split() == ["restart"]
