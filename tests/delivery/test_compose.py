"""The backend under Compose, with images of our own and a real engine: that it starts, serves, keeps to itself, and goes away."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine import ROOT, Engine, names
from mesh.compose import places, preparation
from mesh.topology import BROKER, BROKER_OPS_PORT, BROKER_PORT, CACHE, EDGE, SERVICES, STATE, TABLE
from mesh.valkey import ADMINISTRATOR

from conftest import free_port_offset

PROJECT = "delivery"
# Whose metrics and probes this machine may see, too: it has an address there.
OPS_NETWORK = "10.213.97.0/24"
_JOBS = ("prepare", "keys", "migrations", "streams")
# Of the end-to-end suite, the modules that call a platform and look into its databases. The others look into what a stack on this
# machine has besides: its spans (test_traces), its logs (test_secrecy), ops ports by process (test_metrics), demo data (test_readme).
END_TO_END = ("test_abuse", "test_audit", "test_auth", "test_contract", "test_events", "test_orders", "test_reference")
# Docker's proxy calls for clients of this machine: the edge sees the gateway's address, and one for all.
BY_ADDRESS = (
    "test_audit.py::test_who_changed_this_price",
    "test_auth.py::test_another_address_is_another_client_unless_it_has_the_devices_cookie",
    "test_auth.py::test_sessions_are_listed_with_the_current_one_marked_and_can_be_ended",
)
# Until a service is ready: CPU, for how long that takes is this machine's business.
MOST_CPU_SECONDS = 3.0
_LISTENING = "0A"


@dataclass(frozen=True)
class Composed:
    """The platform, running."""

    engine: Engine
    settings: Mapping[str, str]
    offset: int

    def compose(self, *arguments: str, given: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.compose(PROJECT, self.settings, *arguments, given=given, check=check)

    def container(self, name: str) -> dict[str, Any]:
        return self.engine.inspect(f"{PROJECT}-{name}-1")

    def volume(self, name: str) -> Path:
        return self.engine.directory / "data" / "volumes" / f"{PROJECT}_{name}" / "_data"

    def secret(self, volume: str, *path: str) -> str:
        return self.volume(volume).joinpath(*path).read_text(encoding="utf-8")

    def ops(self, name: str) -> str:
        """Where a process's probes are, for whoever is in the network of operations."""
        address = self.container(name)["NetworkSettings"]["Networks"][f"{PROJECT}_ops"]["IPAddress"]
        return f"http://{address}:{next(row.ops_port for row in TABLE if row.name == name)}"


@pytest.fixture(scope="module")
def composed(images: Engine) -> Iterator[Composed]:
    offset = free_port_offset()
    settings = names() | {
        "HTTP_PORT": str(EDGE.port + offset),
        "HTTPS_PORT": str(EDGE.tls_port + offset),
        "OPS_NETWORK": OPS_NETWORK,
        # The suite hammers; limits have tests of their own.
        "RATE_LIMIT_SCALE": "100",
        "MAX_DECLINED_PAYMENTS": "0",
        "MAX_UNPAID_ORDERS": "0",
        "MAX_UNPAID_PIECES": "0",
    }
    made = Composed(images, settings, offset)
    try:
        begun = time.monotonic()
        made.compose("up", "--detach", "--wait", "--wait-timeout", "300", "--no-build", "--pull", "never", *_started())
        print(f"compose up --wait: {time.monotonic() - begun:.1f} s")
        yield made
    except AssertionError:
        print(made.compose("logs", "--no-color", "--tail", "40", check=False).stdout)
        raise
    finally:
        made.compose("down", "--volumes", "--timeout", "30")
    assert (
        images.docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}").stdout == ""
    )


def _started() -> list[str]:
    """What is to be running in the end: the jobs that these wait for end before."""
    return [*(row.name for row in TABLE), "certificates"]


def test_it_serves_over_http_and_https(composed: Composed) -> None:
    trusted = ssl.create_default_context(cafile=composed.volume("public") / "ca.crt")
    urls = [
        f"http://127.0.0.1:{composed.settings['HTTP_PORT']}",
        f"https://localhost:{composed.settings['HTTPS_PORT']}",
    ]
    for url in urls:
        answer = httpx.get(f"{url}/v1/products", verify=trusted, trust_env=False, timeout=30)
        assert (answer.status_code, answer.json()["items"]) == (200, [])


def test_every_job_has_ended_well_and_every_process_is_healthy(composed: Composed) -> None:
    for job in _JOBS:
        assert composed.container(job)["State"]["ExitCode"] == 0, job
    for row in TABLE:
        assert composed.container(row.name)["State"]["Health"]["Status"] == "healthy", row.name


def test_no_port_is_open_that_the_table_does_not_know(composed: Composed) -> None:
    allowed = {row.name: set(row.ports) for row in TABLE} | {BROKER: {BROKER_PORT, BROKER_OPS_PORT}}
    for name in (*allowed, "postgres", STATE, CACHE):
        assert _listens(composed.container(name)["State"]["Pid"]) <= allowed.get(name, set()), name
    published = {
        name: {
            f"{port}": [at["HostIp"] for at in where or []]
            for port, where in composed.container(name)["NetworkSettings"]["Ports"].items()
        }
        for name in (*allowed, "postgres", STATE, CACHE)
    }
    reachable = {name: {port for port, at in ports.items() if at} for name, ports in published.items()}
    assert {name for name, ports in reachable.items() if ports} == {EDGE.name}
    assert {at for where in published[EDGE.name].values() for at in where} == {"127.0.0.1"}


def _listens(pid: int) -> set[int]:
    """The TCP ports that are open in a process's network, but of the engine's own resolver (127.0.0.11)."""
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{family}").read_text(encoding="ascii").splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            host, port = address.rsplit(":", 1)
            if state == _LISTENING and host != "0B00007F":
                found.add(int(port, 16))
    return found


def test_a_container_runs_python_and_envoy_and_nothing_else_as_its_user(composed: Composed) -> None:
    for row in TABLE:
        shown = composed.engine.docker("top", f"{PROJECT}-{row.name}-1", "-eo", "uid,pid,comm").stdout.splitlines()[1:]
        seen = {(line.split()[0], line.split()[2]) for line in shown}
        assert {user for user, _ in seen} == {str(places.USER)}, row.name
        assert {command for _, command in seen} <= {"python", "python3", "envoy"}, row.name
        # Who is asked to stop is the one that drains.
        assert composed.container(row.name)["Path"] == "/app/bin/python"


def test_no_secret_is_told_to_who_looks_at_containers(composed: Composed) -> None:
    described = json.dumps(
        [composed.container(name) for name in (*(row.name for row in TABLE), "postgres", STATE, CACHE, *_JOBS)]
    )
    written = composed.compose("logs", "--no-color").stdout
    for path in [*(composed.volume("ops") / "passwords").iterdir(), *(composed.volume("user").glob("*_secret"))]:
        value = path.read_text(encoding="utf-8")
        assert len(value) >= 32
        assert value not in described, path.name
        assert value not in written, path.name


def test_being_ready_costs_a_service_no_more_than_its_bound(composed: Composed) -> None:
    costs = {service.name: _cpu_until_ready(composed, service.name) for service in SERVICES}
    print({name: f"{seconds:.1f} s of CPU" for name, seconds in costs.items()})
    assert max(costs.values()) < MOST_CPU_SECONDS


def _cpu_until_ready(composed: Composed, name: str) -> float:
    composed.compose("restart", "--timeout", "30", name)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if (
                httpx.get(f"{composed.ops(name)}/healthz/ready", timeout=2, trust_env=False).status_code
                == httpx.codes.OK
            ):
                break
        except (httpx.TransportError, KeyError):
            pass
        time.sleep(0.05)
    identity = composed.container(name)["Id"]
    used = composed.engine.asked(f"/containers/{identity}/stats?stream=false&one-shot=true")
    return float(used["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


def test_who_may_read_metrics_is_the_network_of_operations_alone(composed: Composed) -> None:
    answer = httpx.get(f"{composed.ops('bff')}/metrics", trust_env=False, timeout=30)
    assert answer.status_code == httpx.codes.OK
    assert "backend_" in answer.text
    ask = (
        "import http.client\n"
        f"c = http.client.HTTPConnection('bff', {next(row.ops_port for row in TABLE if row.name == 'bff')}, timeout=10)\n"
        "c.request('GET', '/metrics')\n"
        "print(c.getresponse().status)"
    )
    # The edge has addresses in three networks; a neighbour's in the mesh is none of operations'.
    mesh = composed.container("bff")["NetworkSettings"]["Networks"][f"{PROJECT}_mesh"]["IPAddress"]
    said = composed.compose("exec", "-T", "user", "python", "-c", ask.replace("'bff'", f"'{mesh}'"))
    assert said.stdout.strip() == "403"


def test_a_certificate_that_is_renewed_is_taken_by_who_serves(composed: Composed) -> None:
    """What the container `certificates` does at half of their lives, done now."""
    before = (composed.volume("bff") / "..data").readlink()
    script = (
        "from pathlib import Path; from mesh.compose import preparation; "
        "preparation.certificates(Path('/etc/backend'), 'localhost').rotate(); import os, signal; os.kill(1, signal.SIGHUP)"
    )
    composed.compose("exec", "-T", "certificates", "/app/bin/python", "-c", script)
    assert (composed.volume("bff") / "..data").readlink() != before
    answer = httpx.get(f"http://127.0.0.1:{composed.settings['HTTP_PORT']}/v1/products", trust_env=False, timeout=30)
    assert answer.status_code == httpx.codes.OK
    assert "Reloaded server configuration" in composed.compose("logs", "--no-color", BROKER).stdout


def test_starting_it_again_changes_no_secret_and_runs_no_migration(composed: Composed) -> None:
    before = composed.secret("ops", "passwords", "postgres")
    composed.compose("up", "--detach", "--wait", "--wait-timeout", "300", "--no-build", "--pull", "never", *_started())
    assert composed.secret("ops", "passwords", "postgres") == before
    assert "the databases have every migration" in composed.compose("logs", "--no-color", "migrations").stdout


def test_the_end_to_end_suite_passes_against_it(composed: Composed, tmp_path: Path) -> None:
    told = {**os.environ, "PLATFORM": str(_described(composed, tmp_path)), "REQUIRE_PROGRAMS": ""}
    told.pop("DELIVERY", None)
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", *(f"tests/e2e/{name}.py" for name in END_TO_END)]
    command += [part for name in BY_ADDRESS for part in ("--deselect", f"tests/e2e/{name}")]
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, encoding="utf-8", check=False)
    print("\n".join(done.stdout.splitlines()[-25:]))
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4_000:]


def _described(composed: Composed, directory: Path) -> Path:
    """The platform for tests/elsewhere.py: who may log in, and where everything is."""
    accounts = {}
    for role in ("admin", "support", "customer"):
        accounts[role] = {"email": f"{role}@example.com", "password": secrets.token_urlsafe(16)}
        making = (
            "exec",
            "-T",
            "user",
            "python",
            "-m",
            "user.create_user",
            accounts[role]["email"],
            f"{role} somebody",
            role,
        )
        composed.compose(*making, given=accounts[role]["password"] + "\n")
    trust = directory / "certs" / "public"
    trust.mkdir(parents=True)
    shutil.copy(composed.volume("public") / "ca.crt", trust / "ca.crt")
    valkeys = {
        server: f"unix://{ADMINISTRATOR}:{composed.secret('ops', 'passwords', ADMINISTRATOR)}@{composed.volume(f'{server}-socket')}/{server}.sock?db=0"
        for server in (STATE, CACHE)
    }
    password = composed.secret("ops", "passwords", places.SUPERUSER)
    file = directory / "platform.json"
    file.write_text(
        json.dumps(
            {
                "directory": str(directory),
                "port_offset": composed.offset,
                "endpoints": {
                    "public": f"http://127.0.0.1:{composed.settings['HTTP_PORT']}",
                    "public_tls": f"https://127.0.0.1:{composed.settings['HTTPS_PORT']}",
                },
                "accounts": accounts,
                "database_url": f"postgresql://{places.SUPERUSER}:{password}@/{{database}}?host={composed.volume('postgres-socket')}",
                "valkey_urls": valkeys,
                "trace_key": preparation.trace_key(composed.secret("ops", "trace-secret")),
            }
        ),
        encoding="utf-8",
    )
    return file
