"""The Envoy configurations of another place than this machine come from the same source, by other values."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from chassis.admission import BOUNDS
from chassis.launch import _ACTIVE_REQUESTS, environment, envoy_command
from chassis.pressure import _OPEN
from devstack.layout import Layout
from devstack.options import Options
from mesh import statistics, topology
from mesh.certificates import Certificates
from mesh.envoy import Process, configuration, secret_files
from mesh.policies import Policies
from mesh.site import Endpoint, Site
from mesh.topology import EDGE, SERVICES, Service

from devstack import proxies


@pytest.fixture
def cluster(tmp_path: Path) -> Site:
    """As it might be in Kubernetes: mounted certificates, names instead of addresses, a trust domain of one's own."""
    Certificates(tmp_path / "pki", tmp_path / "mounted").ensure()
    here = proxies.site(Layout(tmp_path), Options(), lifespan=False)
    return replace(
        here,
        environment="production",
        version="2.3.4",
        trust_domain="shop.example",
        token_issuer="https://shop.example",
        certificates=tmp_path / "mounted",
        public_certificate=tmp_path / "mounted" / "public",
        public_host="api.shop.example",
        otlp_endpoint="http://collector.telemetry:4318/otlp",
        secret_files=tmp_path / "sds",
        address="0.0.0.0",
        ops_address="0.0.0.0",
        ops_networks=("10.0.0.0/8",),
        endpoints={
            name: (Endpoint(f"{name}.backend.svc", 9000),)
            for name in ("bff", "user", "order", "notification", "limiter")
        },
    )


def values(tree: Any) -> list[str]:
    """Every leaf of a document."""
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in values(branch)]
    if isinstance(tree, list):
        return [leaf for branch in tree for leaf in values(branch)]
    return [str(tree)]


@pytest.mark.parametrize("name", ["edge", "bff", "order"])
def test_a_cluster_is_rendered_from_values_and_envoy_takes_it(cluster: Site, tmp_path: Path, name: str) -> None:
    directory = Path(cluster.secret_files) / name
    directory.mkdir(parents=True)
    for file, text in secret_files(name, cluster).items():
        (directory / file).write_text(text, encoding="utf-8")
    process = Process(name, port=9000, ops_port=9100, socket_prefix=f"run/{name}", tls_port=9443)
    text = configuration(process, cluster, Options(max_heap_mib=2048, rate_limit_scale=2, max_connections=99))
    leaves = values(yaml.safe_load(text))
    assert not any("backend.local" in leaf or leaf.startswith("127.") for leaf in leaves)
    if name == "edge":
        assert {"http://collector.telemetry:4318/otlp/v1/traces", "collector.telemetry", "4318"} <= set(leaves)
    if name != "order":
        peer = "bff" if name == "edge" else "order"
        assert {f"spiffe://shop.example/{peer}", f"{peer}.backend.svc"} <= set(leaves)
    assert "spiffe://shop.example/" in leaves or name == "edge"
    assert {"production", "2.3.4", "10.0.0.0", str(2048 * 2**20), "99"} <= set(leaves)
    config = tmp_path / f"{name}.yaml"
    config.write_text(text, encoding="utf-8")
    command = [envoy_command(config)[0], "--mode", "validate", "--config-path", str(config), "--log-level", "error"]
    (tmp_path / "run").mkdir()
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def limits_in(tree: Any) -> list[dict[str, Any]]:
    """Every local rate limit of a document."""
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    found = [limit for branch in branches for limit in limits_in(branch)]
    return [*found, tree] if isinstance(tree, dict) and str(tree.get("@type")).endswith(".LocalRateLimit") else found


def test_an_ipv6_network_is_one_address_to_every_limit_of_the_edge(cluster: Site) -> None:
    """A client has 2^64 addresses of it: each would have a limit of its own, and push the others' out."""
    process = Process("edge", port=9000, ops_port=9100, socket_prefix="run/edge", tls_port=9443)
    limits = limits_in(yaml.safe_load(configuration(process, cluster, Options())))
    by_address = [
        action
        for limit in limits
        for rule in limit.get("rate_limits", ())
        for action in rule["actions"]
        if any("address" in kind for kind in action)
    ]
    assert len(by_address) > 10
    assert all(action["masked_remote_address"]["v6_prefix_mask_len"] == 64 for action in by_address)
    assert all(
        entry["key"] in {"user", "masked_remote_address"}
        for limit in limits
        for descriptor in limit.get("descriptors", ())
        for entry in descriptor["entries"]
    )


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_what_all_lanes_hold_fits_through_the_circuit_in_front_of_them(cluster: Site, replicas: int) -> None:
    """Otherwise a class would be refused there for another's calls."""
    held = replicas * sum(bounds.slots + bounds.queue for bounds in BOUNDS.values())
    several = {name: tuple(Endpoint(f"{name}-{n}", 9000) for n in range(replicas)) for name in cluster.endpoints}
    for caller, called in (("edge", {"bff"}), ("bff", {"user", "order", "notification"}), ("notification", {"user"})):
        process = Process(caller, port=9000, ops_port=9100, socket_prefix=f"run/{caller}", tls_port=9443)
        text = configuration(process, replace(cluster, endpoints=several), Options())
        clusters = {c["name"]: c for c in yaml.safe_load(text)["static_resources"]["clusters"]}
        for name in called:
            (circuit,) = clusters[name]["circuit_breakers"]["thresholds"]
            streams = clusters[name]["typed_extension_protocol_options"][
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            ]["explicit_http_config"]["http2_protocol_options"]["max_concurrent_streams"]
            assert circuit["max_requests"] >= held
            # Where a replica takes no new connection: on the one that it has, and in the queue for another.
            assert replicas * streams + circuit["max_pending_requests"] >= held


def connection_managers(tree: Any) -> list[dict[str, Any]]:
    """Every one of a configuration, wherever it stands."""
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    below = [manager for branch in branches for manager in connection_managers(branch)]
    mine = isinstance(tree, dict) and str(tree.get("@type", "")).endswith(".HttpConnectionManager")
    return [*below, *([tree] if mine else [])]


@pytest.mark.parametrize("proxies", [(), ("10.0.0.0/8",), ("0.0.0.0/0",)])
@pytest.mark.parametrize("name", ["edge", "bff", "order"])
def test_no_address_is_internal(cluster: Site, name: str, proxies: tuple[str, ...]) -> None:
    """What Envoy calls an internal address may steer it. An empty list would be all private networks."""
    process = Process(name, port=9000, ops_port=9100, socket_prefix=f"run/{name}", tls_port=9443)
    managers = connection_managers(yaml.safe_load(configuration(process, cluster, Options(trusted_proxies=proxies))))
    assert managers
    nobody = {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]}
    for manager in managers:
        public = manager["stat_prefix"] == "ingress" and name == "edge"
        assert manager.get("internal_address_config") == (nobody if public else None)
        if public:
            early = manager["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
            assert {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}} in early


def test_the_edge_calls_the_services_that_its_row_names(cluster: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    called = {EDGE.api: "gate", EDGE.limiter: "counter"}
    services = [replace(service, name=called.get(service.name, service.name)) for service in SERVICES]
    monkeypatch.setattr(topology, "TABLE", (*services, replace(EDGE, api="gate", limiter="counter")))
    endpoints = {name: (Endpoint(f"{name}.backend.svc", 9000),) for name in called.values()}
    process = Process(EDGE.name, port=9000, ops_port=9100, socket_prefix="run/edge", tls_port=9443)
    options = Options(cors_origins=("https://shop.example",))
    rendered = yaml.safe_load(configuration(process, replace(cluster, endpoints=endpoints), options))
    assert {found["name"] for found in rendered["static_resources"]["clusters"]} >= {"gate", "counter", "counter_door"}
    # Comments of the scripts that the edge runs may name them.
    said = [re.sub(r"--.*", "", value) for value in values(rendered)]
    assert [value for value in said if re.search(r"\b(bff|limiter)(\b|_)", value)] == []


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_who_calls_others_has_an_egress_socket_to_them_and_to_nobody_else(cluster: Site, service: Service) -> None:
    process = Process(service.name, port=9000, ops_port=9100, socket_prefix=f"run/{service.name}")
    rendered = yaml.safe_load(configuration(process, cluster, Options()))
    own = [one for one in rendered["static_resources"]["listeners"] if one["name"] == "egress"]
    if not service.upstreams:
        assert own == []
        return
    (listener,) = own
    assert listener["address"] == {"pipe": {"path": f"run/{service.name}.egress.sock", "mode": 0o600}}
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    *called, nobody = manager["route_config"]["virtual_hosts"]
    assert [(host["domains"], host["routes"][0]["route"]["cluster"]) for host in called] == [
        ([name], name) for name in service.upstreams
    ]
    assert (nobody["domains"], nobody["routes"][0]["direct_response"]["status"]) == (["*"], 403)


@pytest.mark.parametrize("name", [_ACTIVE_REQUESTS, _OPEN])
def test_an_envoy_keeps_the_statistics_that_our_own_code_reads(name: str) -> None:
    assert re.fullmatch(statistics.kept(), name)


def test_nothing_is_kept_without_its_reason(cluster: Site) -> None:
    """Every process has the matcher, and the policy can be left out."""
    for name, without, count in (("edge", (), 1), ("order", (), 1), ("edge", ("statistics",), 0)):
        process = Process(name, port=9000, ops_port=9100, socket_prefix=f"run/{name}", tls_port=9443)
        text = configuration(process, cluster, Policies(without=without))
        assert text.count("stats_matcher") == count
