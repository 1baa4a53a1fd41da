"""compose.yaml as it is rendered: what each container may do and see, and that services find what they need there."""

from __future__ import annotations

import importlib
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from chassis.config import load
from mesh import valkey
from mesh.compose import places, preparation, render
from mesh.policies import Policies
from mesh.topology import BROKER, EDGE, SERVICES, TABLE, VALKEY_SERVERS
from programs import PROMTOOL

COMPOSE = yaml.safe_load(render.files()["compose.yaml"])
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
_VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")
# Who makes others' files, or all certificates; and who has no secret.
MAKERS = {"prepare", "certificates", "keys"}


def volumes(name: str) -> dict[str, bool]:
    """The volumes of a container, and whether each can be written."""
    found = [volume for volume in CONTAINERS[name].get("volumes", []) if isinstance(volume, str)]
    named = [volume.split(":") for volume in found if not volume.startswith(".")]
    return {volume[0]: volume[2:] != ["ro"] for volume in named}


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_container_may_do_more_than_it_has_to(name: str) -> None:
    container = CONTAINERS[name]
    assert container["user"] == f"{places.USER}:{places.USER}"
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert not container.keys() & {"privileged", "cap_add", "devices", "ipc", "userns_mode"}
    assert container["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    # In another's processes is only who renews the broker's certificate, to tell it.
    assert container.get("pid") == ("service:nats" if name == "certificates" else None)


def test_every_row_has_a_container_and_the_edge_alone_is_reached_from_outside() -> None:
    rows = {row.name for row in TABLE}
    assert rows <= CONTAINERS.keys()
    published = {name for name, container in CONTAINERS.items() if container.get("ports")}
    assert published & rows == {EDGE.name}
    assert not {name for name in published - rows if "observability" not in CONTAINERS[name]["profiles"]}
    inner = {port.rpartition(":")[2] for port in CONTAINERS[EDGE.name]["ports"]}
    assert inner == {str(EDGE.port), str(EDGE.tls_port), f"{EDGE.tls_port}/udp"}
    # And whoever starts it without a word is alone with it.
    assert all(port.startswith("${LISTEN_ADDRESS:-127.0.0.1}:") for port in CONTAINERS[EDGE.name]["ports"])


def test_networks_are_apart() -> None:
    networks = {name: set(container.get("networks", [])) for name, container in CONTAINERS.items()}
    inside = {name for name, network in COMPOSE["networks"].items() if network.get("internal")}
    assert inside == {"mesh", "data", "ops"}
    for service in SERVICES:
        cells = {"data": service.uses_broker, "outside": service.sends_mail}
        assert networks[service.name] == {"mesh", "ops"} | {name for name, cell in cells.items() if cell}, service.name
    assert networks[EDGE.name] == {"edge", "mesh", "ops"}
    assert networks[BROKER] == {"data"}
    for name in (places.POSTGRES, *VALKEY_SERVERS, *MAKERS, "migrations"):
        assert (CONTAINERS[name].get("network_mode"), networks[name]) == ("none", set()), name


def test_what_is_one_processs_own_is_seen_by_nobody_else() -> None:
    for name in (*(row.name for row in TABLE), BROKER, places.POSTGRES, *VALKEY_SERVERS, places.GRAFANA):
        seen_by = {other for other in CONTAINERS if name in volumes(other)} - MAKERS
        assert seen_by == {name}
        assert volumes(name)[name] is False
    assert {name for name in CONTAINERS if places.AUTHORITY in volumes(name)} == {"prepare", "certificates"}
    # A new volume belongs to the user when who mounts it first is the operations' image, which has its directory.
    assert set(volumes("prepare")) == set(places.VOLUMES) == COMPOSE["volumes"].keys()


@pytest.mark.promtool
def test_prometheus_takes_its_file_and_asks_every_row_where_it_is(tmp_path: Path) -> None:
    text = render.files()["deploy/compose/prometheus.yml"]
    (tmp_path / "prometheus.yml").write_text(text, encoding="utf-8")
    command = [str(PROMTOOL), "check", "config", "--syntax-only", str(tmp_path / "prometheus.yml")]
    subprocess.run(command, check=True, capture_output=True)
    (job,) = yaml.safe_load(text)["scrape_configs"]
    asked = {target for entry in job["static_configs"] for target in entry["targets"]}
    assert asked == {f"{row.name}:{row.ops_port}" for row in TABLE}


def test_a_server_of_data_is_reached_by_those_whose_row_says_so() -> None:
    users = {
        places.POSTGRES: {service.name for service in SERVICES if service.database} | {"migrations"},
        **{server: {service.name for service in valkey.of_server(server)} for server in VALKEY_SERVERS},
    }
    for server, expected in users.items():
        having = {name for name in CONTAINERS if f"{server}-socket" in volumes(name)} - {"prepare", server}
        assert having == expected


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("volumes")
    list(preparation.prepare(root, preparation.Told(), Policies()))
    return root


def variables(name: str, root: Path) -> dict[str, str]:
    """A container's environment, as it is when nobody says anything, for volumes that are below `root`."""
    said = {key: value for key, value in CONTAINERS[name]["environment"].items() if value is not None}
    return {key: _VARIABLE.sub(r"\1", value).replace(str(places.ROOT), str(root)) for key, value in said.items()}


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_is_told_all_that_it_has_to_know_and_no_secret(service: Any, prepared: Path) -> None:
    told = variables(service.name, prepared)
    settings = load(importlib.import_module(f"{service.package}.settings").Settings, told)
    assert settings.environment == "development"
    assert told["OPS_PORT"] == str(service.ops_port)
    secrets = [path.read_text(encoding="utf-8") for path in (prepared / "ops" / "passwords").iterdir()]
    secrets += [(prepared / service.name / name).read_text(encoding="utf-8") for name in service.secrets]
    assert not [value for value in told.values() if any(secret in value for secret in secrets)]
    for variable, value in told.items():
        if variable.endswith("_PASSWORD_FILE"):
            assert Path(value).read_text(encoding="utf-8")


def test_what_is_prepared_is_its_owners_alone_and_stays(prepared: Path) -> None:
    files = [path for path in prepared.rglob("*") if path.is_file() and not path.is_symlink()]
    # Of the lock, nobody has anything.
    made = [path for path in files if path.name != "lock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in made}
    list(preparation.prepare(prepared, preparation.Told(), Policies()))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_a_start_that_is_told_something_else_renders_it_and_keeps_secrets(tmp_path: Path) -> None:
    told = preparation.Told(ops_network="10.1.2.0/24")
    list(preparation.prepare(tmp_path, told, Policies()))
    password = (tmp_path / "ops" / "passwords" / "postgres").read_text(encoding="utf-8")
    assert "10.1.2.0" in (tmp_path / "user" / "envoy.yaml").read_text(encoding="utf-8")
    list(preparation.prepare(tmp_path, preparation.Told(ops_network="10.9.9.0/24"), Policies()))
    assert "10.9.9.0" in (tmp_path / "user" / "envoy.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "ops" / "passwords" / "postgres").read_text(encoding="utf-8") == password
