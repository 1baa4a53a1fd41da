"""`backend debug`: what a service is doing, looked at while it serves; and that nobody else sees it."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from conftest import Platform, backend

PATHS = ("tasks", "threads", "state", "pprof/profile?seconds=0.1", "pprof/heap?seconds=0.1")


def test_a_profile_of_a_service_under_load_costs_no_request(stack: Platform, tmp_path: Path) -> None:
    where, file = ("--data-dir", str(stack.layout.data_dir)), tmp_path / "order.pb.gz"
    statuses: Counter[int] = Counter()
    done = threading.Event()

    def read() -> None:
        with httpx.Client(base_url=stack.url) as http:
            while not done.is_set():
                statuses[http.get("/v1/products?limit=20").status_code] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        profile = b""
        # On a busy machine, half a second may see too little of it.
        for _ in range(10):
            backend("debug", "order", "profile", "--seconds", "0.5", "--out", str(file), *where)
            profile = gzip.decompress(file.read_bytes())
            if b"CatalogHandlers.ListProducts" in profile:
                break
        heap = backend("debug", "order", "heap", "--seconds", "0.2", *where).stdout
        tasks = backend("debug", "order", "tasks", *where).stdout
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert set(statuses) == {200}
    assert b"CatalogHandlers.ListProducts" in profile
    assert b"/order/handlers/catalog.py" in profile
    assert "inuse_space" in heap
    assert "Sweep.run" in tasks


def test_state_has_the_checks_and_what_is_full(stack: Platform) -> None:
    said = backend("debug", "order", "state", "--data-dir", str(stack.layout.data_dir)).stdout
    for part in (
        "postgresql",
        "valkey-cache",
        "worker sweep",
        "backend_database_connections",
        "backend_admission_waiting",
    ):
        assert part in said
    threads = backend("debug", "bff", "threads", "--data-dir", str(stack.layout.data_dir)).stdout
    assert "traffic" in threads


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("edge", "tasks"), "no service 'edge'; there are: "),
        (("order", "tasks", "--out", "x.svg"), "tasks are no profile"),
        (("order", "profile", "--out", "x.html"), ".pb.gz, .svg, .txt"),
        (("order", "profile", "--seconds", "31"), "less than or equal to 30"),
        (("order", "locals"), "'locals' is not one of"),
    ],
)
def test_what_cannot_be_asked_for_is_said(stack: Platform, arguments: tuple[str, ...], named: str) -> None:
    done = backend("debug", *arguments, "--data-dir", str(stack.layout.data_dir), check=False)
    said = done.stdout + done.stderr
    assert (done.returncode, named in said) == (2, True), said


@pytest.mark.parametrize("service", ["bff", "user", "order", "notification", "limiter"])
def test_the_ops_listener_knows_nothing_of_it(stack: Platform, service: str) -> None:
    url = stack.status["endpoints"][f"{service}_ops"]
    with httpx.Client() as http:
        for path in PATHS:
            for spelt in (f"debug/{path}", f"%64ebug/{path}", f"/debug/{path}", f"metrics/..%2fdebug/{path}"):
                assert http.get(f"{url}/{spelt}").status_code == 404, spelt
            assert http.get(f"{stack.url}/debug/{path}").status_code == 404
        assert http.post(f"{url}/debug/tasks").status_code == 403
    sockets = stack.layout.data_dir / "run" / f"{service}.ops.sock"
    assert sockets.stat().st_mode & 0o077 == 0


def test_readiness_tells_each_check_on_demand_and_status_what_fails(stack: Platform) -> None:
    ready = {
        "user": {"postgresql", "valkey"},
        "bff": {"valkey"},
        "order": {"postgresql", "valkey-cache", "worker sweep"},
        "notification": {"postgresql", "nats", "worker events", "worker mails"},
    }
    for service, checks in ready.items():
        url = stack.status["endpoints"][f"{service}_ops"]
        said = httpx.get(f"{url}/healthz/ready?verbose").json()
        assert said["ready"] is True
        assert checks <= set(said["checks"])
        assert set(said["checks"].values()) == {"ok"}
        assert httpx.get(f"{url}/healthz/ready").json() == {"ready": True}
    status = json.loads(backend("status", "--json", "--data-dir", str(stack.layout.data_dir)).stdout)
    assert {process["name"]: process["found"] for process in status["processes"] if process["found"]} == {}
