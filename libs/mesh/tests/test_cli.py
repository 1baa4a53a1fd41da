"""`backend-mesh` for a made-up place that is not this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml
from chassis.launch import environment, envoy_command
from devstack.layout import ROOT
from mesh.certificates import Certificates
from mesh.topology import SERVICES, TABLE

from conftest import Platform
from devstack import broker, postgres, proxies

COMMAND = Path(sys.executable).parent / "backend-mesh"


def backend_mesh(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, **variables},
    )


def site_file(directory: Path, **changed: object) -> Path:
    """As it might be in Kubernetes: mounted certificates, names instead of addresses, a trust domain of one's own."""
    site = {
        "environment": "production",
        "version": "2.3.4",
        "trust_domain": "shop.example",
        "token_issuer": "https://shop.example",
        "token_audience": "shop-api",
        "certificates": str(directory / "mounted"),
        "public_certificate": str(directory / "mounted" / "public"),
        "public_host": "api.shop.example",
        "secret_files": str(directory / "out" / "sds"),
        "python_module": str(proxies.python_module()),
        "address": "0.0.0.0",
        "ops_address": "0.0.0.0",
        "ops_networks": ["10.0.0.0/8"],
        "endpoints": {s.name: [{"address": f"{s.name}.backend.svc", "port": s.port}] for s in SERVICES},
        "lifespan": False,
        **changed,
    }
    path = directory / "site.yaml"
    path.write_text(
        yaml.safe_dump({"site": site, "policies": {"max_heap_mib": 2048, "cors_origins": ["https://a.example"]}}),
        encoding="utf-8",
    )
    return path


def test_render_writes_every_envoys_configuration_and_envoy_takes_it(tmp_path: Path) -> None:
    Certificates(tmp_path / "pki", tmp_path / "mounted").ensure()
    out = tmp_path / "out"
    done = backend_mesh("render", "--site", str(site_file(tmp_path)), "--out", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in out.glob("*.yaml")} == {f"{row.name}.yaml" for row in TABLE}
    written = {path for path in out.rglob("*") if path.is_file()}
    assert set(done.stdout.split()) == set(map(str, written))
    assert {path.name for path in written if path.parent.name == "nats"} == {"accounts.conf", "nats.conf"}
    checked = subprocess.run([broker.BINARY, "-t", "-c", out / "nats" / "nats.conf"], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "spiffe://shop.example/order" in (out / "nats" / "accounts.conf").read_text(encoding="utf-8")
    (out / "run").mkdir()
    for row in TABLE:
        config = out / f"{row.name}.yaml"
        text = str(yaml.load(config.read_text(encoding="utf-8"), yaml.CSafeLoader))
        assert "backend.local" not in text
        assert "127.0.0.1" not in text
        assert str(2048 * 2**20) in text
        command = [envoy_command(config)[0], "--mode", "validate", "--config-path", str(config), "--log-level", "error"]
        valid = subprocess.run(
            command, env=environment(), cwd=out, capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert valid.returncode == 0, valid.stdout + valid.stderr


def test_render_names_everything_that_is_wrong_with_a_site(tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    wrong = site_file(tmp_path, version=None, ops_networks=None, adress="0.0.0.0")
    done = backend_mesh("render", "--site", str(wrong), *out)
    assert done.returncode == 1
    for part in ("site.version: ", "site.ops_networks: ", "site.adress: ", str(wrong)):
        assert part in done.stderr
    wrong = site_file(tmp_path, endpoints={"user": [{"address": "user", "port": 1}], "shop": []})
    wrong.write_text(wrong.read_text(encoding="utf-8").replace("https://a.example", "a.example"), encoding="utf-8")
    done = backend_mesh("render", "--site", str(wrong), *out)
    for part in ("none of bff", "none of limiter", "none of order", "shop is no service", "'a.example' is no origin"):
        assert part in done.stderr
    assert "none of user" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_render_writes_one_process_with_a_key_that_is_in_no_file(tmp_path: Path) -> None:
    out, key = tmp_path / "out", "0123456789abcdef" * 2
    file = site_file(tmp_path, otlp_endpoint="http://collector:4318")
    arguments = ("render", "--site", str(file), "--out", str(out), "--process", "edge")
    done = backend_mesh(*arguments, TRACE_KEY=key)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in out.iterdir()} == {"edge.yaml", "sds"}
    assert {path.name for path in (out / "sds").iterdir()} == {"edge"}
    assert key in (out / "edge.yaml").read_text(encoding="utf-8")
    assert key not in file.read_text(encoding="utf-8")
    assert backend_mesh(*arguments, TRACE_KEY="short").stderr.count("site.trace_key: ") == 1
    refused = backend_mesh("render", "--site", str(file), "--out", str(tmp_path / "no"), "--process", "shop")
    assert "shop is no row" in refused.stderr


def test_render_knows_how_many_a_name_stands_for_and_by_which_port_clients_come(tmp_path: Path) -> None:
    endpoints = {s.name: [{"address": f"{s.name}.svc", "port": s.port, "replicas": 7}] for s in SERVICES}
    file = site_file(tmp_path, endpoints=endpoints, public_port=443, ops_networks=["fd00::/8"], address="::")
    out = tmp_path / "out"
    assert backend_mesh("render", "--site", str(file), "--out", str(out)).returncode == 0
    edge = yaml.load((out / "edge.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    clusters = {cluster["name"]: cluster for cluster in edge["static_resources"]["clusters"]}
    (bounds,) = clusters["bff"]["circuit_breakers"]["thresholds"]
    assert bounds["max_requests"] == 7 * 1024
    assert 'h3=":443"' in str(edge)
    assert 'h3=":8143"' not in str(edge)


@pytest.mark.parametrize("text", [None, "a: [", "[]", "\xff"])
def test_render_says_which_file_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "site.yaml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    done = backend_mesh("render", "--site", str(path), "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


async def test_migrate_brings_a_servers_databases_up_to_date(platform: Platform, tmp_path: Path) -> None:
    url = postgres.superuser_url(platform.layout, platform.secrets, "postgres")
    done = backend_mesh("migrate", "--root", str(ROOT), DATABASE_URL=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the databases have every migration\n", "")
    version = f"9999{uuid.uuid4().int % 10**12}"
    directory = tmp_path / "services" / "user" / "db" / "migrations"
    directory.mkdir(parents=True)
    (directory / f"{version}_probe.sql").write_text("-- migrate:up\nSELECT 1;\n", encoding="utf-8")
    own = ("migrate", "--root", str(tmp_path), "--service", "user")
    database = await platform.database("userdb")
    try:
        planned = backend_mesh(*own, "--dry-run", DATABASE_URL=url)
        assert planned.stdout == f"userdb  {version}_probe.sql  would run in a transaction\n"
        done = backend_mesh(*own, DATABASE_URL=url)
        assert (done.returncode, done.stdout) == (0, f"userdb  {version}_probe.sql  done\n")
        assert await database.fetchval("SELECT count(*) FROM schema_migrations WHERE version = $1", version) == 1
    finally:
        await database.execute("DELETE FROM schema_migrations WHERE version = $1", version)
        await database.close()


def test_migrate_says_all_that_is_missing_and_what_cannot_be_reached(tmp_path: Path) -> None:
    nowhere = f"postgresql://postgres@/postgres?host={tmp_path}"
    done = backend_mesh(
        "migrate", "--root", str(tmp_path), "--service", "bff", "--service", "user", DATABASE_URL=nowhere
    )
    assert done.returncode == 1
    assert "bff is no service with a database" in done.stderr
    assert "user/db/migrations is not there" in done.stderr
    for more in ((), ("--dry-run",)):
        done = backend_mesh("migrate", "--root", str(ROOT), *more, DATABASE_URL=nowhere)
        assert (done.returncode, done.stdout) == (1, "")
        assert "userdb: " in done.stderr
        assert "Traceback" not in done.stderr
    done = backend_mesh("migrate", "--root", str(ROOT), DATABASE_URL=nowhere)
    assert "orderdb: " in done.stderr


@pytest.mark.parametrize("command", ["render", "migrate"])
def test_each_command_says_what_it_is_for(command: str) -> None:
    assert command in backend_mesh("--help").stdout
    done = backend_mesh(command, "--help")
    assert done.returncode == 0
    assert "--help" in done.stdout
