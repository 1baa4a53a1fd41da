"""Between the processes: who may connect, and who may call what. Each refusal is also shown to be its policy's."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import inside
import psutil
import pytest
from chassis.private_files import private_pem
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from devstack.layout import PORTS
from devstack.options import Options
from mesh import peers
from mesh.certificates import WORKLOADS, Certificates, workload_certificate
from mesh.topology import EDGE, OPERATORS, OTHER_PORTS, SERVICES, TABLE, Service, service_of
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families as prometheus_families
from redis.exceptions import NoPermissionError, ResponseError

from conftest import People, Platform
from devstack import postgres, proxies

USERS = {service.name: service.valkey for service in SERVICES if service.valkey is not None}
GET_ORDER = "/order.v1.OrderService/GetOrder"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
UNLOG_IND, PERMISSION_DENIED = "16", "7"


@pytest.fixture(scope="module")
def impostors(stack: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ssl.SSLContext]:
    """Clients whose certificates are not what they should be."""
    base = tmp_path_factory.mktemp("impostors")
    trust = (stack.layout.certificates / "bff" / "ca.crt").read_bytes()
    own = Certificates(stack.layout.pki, base / "unused")._intermediate()
    Certificates(base / "pki", base / "certs").ensure()
    foreign = Certificates(base / "pki", base / "certs")._intermediate()
    now = datetime.now(UTC)
    life = timedelta(hours=1)
    found = {}
    for name, authority, begins, subject in (
        ("another CA", foreign, now, "bff"),
        ("expired", own, now - timedelta(hours=2), "bff"),
        ("not yet valid", own, now + timedelta(hours=1), "bff"),
        # The public listener's certificate is a server's, without a SPIFFE id.
        ("no identity", own, now, "public"),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = workload_certificate(
            subject, key.public_key(), authority.certificate, authority.key, life, begins=begins
        )
        directory = base / name
        directory.mkdir()
        chain = certificate.public_bytes(Encoding.PEM) + authority.certificate.public_bytes(Encoding.PEM)
        (directory / "tls.crt").write_bytes(chain)
        (directory / "tls.key").write_bytes(private_pem(key))
        (directory / "ca.crt").write_bytes(trust)
        found[name] = inside.identity(directory)
    anonymous = base / "no certificate"
    anonymous.mkdir()
    (anonymous / "ca.crt").write_bytes(trust)
    found["no certificate"] = inside.identity(anonymous)
    return found


def as_(stack: Platform, name: str) -> ssl.SSLContext:
    return inside.identity(stack.layout.certificates / name)


def processes(stack: Platform, service: str = "") -> list[str]:
    """The Envoys that run, of one service or all."""
    names = [process["name"] for process in stack.status["processes"]]
    return [name for name in names if service_of(name) in {row.name for row in TABLE if service in ("", row.name)}]


@pytest.mark.parametrize("target", [service.name for service in SERVICES] + ["order-2"])
@pytest.mark.parametrize("who", ["no certificate", "another CA", "expired", "not yet valid", "no identity"])
async def test_only_a_certificate_of_ours_connects(
    stack: Platform, impostors: dict[str, ssl.SSLContext], who: str, target: str
) -> None:
    assert (await inside.call(stack.layout.port(target), GET_ORDER, impostors[who])).status is None


async def test_only_tls_1_3_connects_and_plaintext_does_not(stack: Platform) -> None:
    older = as_(stack, "bff")
    older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (older, None):
        assert (await inside.call(stack.layout.port("order"), GET_ORDER, context)).status is None


async def test_without_mtls_anyone_would_reach_python(stack: Platform) -> None:
    with inside.another(stack, "order", Options(without=("mtls",))) as own:
        answer = await inside.call(own.port("order"), GET_ORDER, None)
    assert answer.grpc_status == UNLOG_IND


def may_call(service: Service) -> dict[str, tuple[str, ...]]:
    """Who may call what of a gRPC service, as its contracts say; health and reflection as all services have them."""
    by_contract = peers.callers(service)
    everybody = {caller for callers in by_contract.values() for caller in callers}
    return {
        **{f"/{contract}/": callers for contract, callers in by_contract.items()},
        HEALTH: (*everybody, OPERATORS),
        REFLECTION: (OPERATORS,),
        # What no contract has, however much it looks like it.
        "/order.v1.Unknown/Method": (),
        **{f"/{contract}x/Method": () for contract in by_contract},
    }


CALLS = [
    pytest.param(service, path, callers, id=f"{service.name}{path}")
    for service in SERVICES
    if service.serves_grpc
    for path, callers in may_call(service).items()
]


@pytest.mark.parametrize(("service", "path", "callers"), CALLS)
async def test_who_may_call_what(stack: Platform, service: Service, path: str, callers: tuple[str, ...]) -> None:
    """Whether Envoy lets everybody of the mesh through to Python, which then asks for a token, a field, …."""
    for process in processes(stack, service.name):
        for who in WORKLOADS:
            answer = await inside.call(stack.layout.port(process), path, as_(stack, who))
            assert answer.status == 200
            refused = answer.grpc_status == PERMISSION_DENIED and "RBAC" in answer.headers.get("grpc-message", "")
            assert refused is not (who in callers), (process, who, answer)


def test_operators_call_nothing_of_a_contract() -> None:
    named = [callers for service in SERVICES for callers in peers.callers(service).values()]
    assert named
    assert not any(OPERATORS in callers for callers in named)


@pytest.mark.parametrize("who", [name for name in WORKLOADS if name != EDGE.name])
async def test_nobody_but_the_edge_calls_the_api(stack: Platform, who: str) -> None:
    before = await inside.requests_at(stack, EDGE.api)
    answer = await inside.call(stack.layout.port(EDGE.api), "/v1/products?limit=1", as_(stack, who), method="GET")
    assert answer.status == 403
    own = await inside.call(stack.layout.port(EDGE.api), "/v1/products?limit=1", as_(stack, EDGE.name), method="GET")
    assert own.status == 200
    assert await inside.requests_at(stack, EDGE.api) > before


async def test_without_the_peer_rules_a_wrong_service_would_reach_python(stack: Platform) -> None:
    with inside.another(stack, "order", Options(without=("peers",))) as own:
        answer = await inside.call(own.port("order"), GET_ORDER, as_(stack, "user"))
    assert answer.grpc_status == UNLOG_IND


async def test_a_client_talks_to_no_other_service_than_it_meant(stack: Platform) -> None:
    """An edge whose address of the BFF is by mistake that of the User service."""
    options = Options()
    here = proxies.site(stack.layout, options)
    wrong = replace(here, endpoints={**here.endpoints, "bff": here.endpoints["user"]})
    with inside.another(stack, "edge", options, wrong) as own:
        async with httpx.AsyncClient(timeout=10) as client:
            response = await client.get(f"http://127.0.0.1:{own.port('public')}/v1/products?limit=1")
        upstream = await inside.metrics(f"http://127.0.0.1:{own.port('edge_ops')}")
    assert response.status_code == 503
    assert "/v1/products" not in (stack.layout.logs / "user.log").read_text(encoding="utf-8")
    assert upstream['envoy_cluster_ssl_fail_verify_san{envoy_cluster_name="bff"}'] > 0


async def test_a_call_around_the_edge_gains_nothing(stack: Platform) -> None:
    """Even with the BFF's certificate, a call without a person's token is nobody's; with invented names, too."""
    invented = {"x-caller-id": "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21", "x-caller-roles": "admin"}
    answer = await inside.call(stack.layout.port("order"), GET_ORDER, as_(stack, "bff"), headers=invented)
    assert answer.grpc_status == UNLOG_IND


def test_what_listens_is_what_should(stack: Platform) -> None:
    state = stack.status
    pids = [process["pid"] for process in state["processes"]]
    listening = set()
    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            for connection in process.net_connections("inet"):
                kind = "udp" if connection.type == 2 else "tcp"
                if connection.status == psutil.CONN_LISTEN or (kind == "udp" and not connection.raddr):
                    listening.add((kind, connection.laddr.ip, connection.laddr.port - stack.layout.port_offset))
    public = {("tcp", "127.0.0.1", EDGE.port), *((kind, "127.0.0.1", EDGE.tls_port) for kind in ("tcp", "udp"))}
    over_mtls = {("tcp", "127.0.0.1", PORTS[name]) for name in processes(stack) if name != EDGE.name}
    ops = {("tcp", "127.0.0.1", PORTS[f"{name}_ops"]) for name in processes(stack)}
    others = {("tcp", "127.0.0.1", PORTS[name]) for name in OTHER_PORTS}
    assert listening == public | over_mtls | ops | others


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 404), ("127.0.0.1.evil.example", 404), ("localhost", 200)]
)
async def test_ops_ports_are_called_by_this_machines_names_alone(stack: Platform, host: str, status: int) -> None:
    """A page of somebody else's makes a name of its own point here (DNS rebinding)."""
    async with httpx.AsyncClient() as client:
        for name in processes(stack):
            port = stack.layout.port(f"{name}_ops")
            for path in ("/metrics", "/metrics/envoy", "/healthz/live"):
                answer = await client.get(f"http://127.0.0.1:{port}{path}", headers={"host": f"{host}:{port}"})
                assert answer.status_code == status, (name, path)


async def test_what_should_be_encrypted_is(stack: Platform) -> None:
    for name in processes(stack):
        if name != EDGE.name:
            answer = await inside.call(stack.layout.port(name), HEALTH, None)
            assert answer.status is None


def test_secrets_and_sockets_are_their_owners_only(stack: Platform) -> None:
    for path in (*stack.layout.pki.glob("*.key"), *stack.layout.certificates.glob("*/tls.key")):
        assert path.stat().st_mode & 0o077 == 0, path
    for path in (*stack.layout.run.iterdir(), stack.layout.sockets / "valkey.sock"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert {path.name for path in stack.layout.certificates.iterdir()} == {*WORKLOADS, "public"}


@pytest.mark.parametrize("user", sorted(USERS))
async def test_a_service_sees_its_own_keys_in_valkey_and_no_others(stack: Platform, user: str) -> None:
    owners = {pattern.removesuffix(":*"): name for name, own in USERS.items() for pattern in own.keys}
    assert len(owners) >= len(USERS) - 1
    async with stack.valkey(user) as client:
        for prefix, owner in owners.items():
            key = f"{prefix}:acl-test"
            if owner == user:
                await client.set(key, "1", px=1000)
                # The limiter reads in its script only.
                if "get" in USERS[user].commands:
                    assert await client.get(key) == b"1"
            else:
                with pytest.raises(NoPermissionError):
                    await client.set(key, "1")
                if f"{prefix}:*" in USERS[user].reads:
                    await client.get(key)
                else:
                    with pytest.raises(NoPermissionError):
                        await client.get(key)
        for command in (
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("ACL", "LIST"),
            ("SHUTDOWN",),
            ("DEBUG", "SLEEP", "0"),
        ):
            with pytest.raises((NoPermissionError, ResponseError)):
                await client.execute_command(*command)  # type: ignore[no-untyped-call]


async def test_valkey_knows_nobody_without_a_password(stack: Platform) -> None:
    from redis.asyncio import Redis
    from redis.exceptions import ConnectionError as RedisConnectionError

    async with Redis(unix_socket_path=str(stack.layout.sockets / "valkey.sock")) as client:
        with pytest.raises((RedisConnectionError, ResponseError), match="authenticat"):
            await client.get("bff:x")


@pytest.mark.parametrize("service", [service.name for service in SERVICES if service.database is not None])
async def test_a_services_role_has_its_rows_and_nothing_else(stack: Platform, service: str) -> None:
    own = postgres.database_of(service, stack.secrets)
    other = next(d for d in postgres.databases(stack.secrets) if d.service != service)
    connection = await asyncpg.connect(own.url(stack.layout))
    try:
        for statement in ("CREATE TABLE x (y int)", "CREATE SCHEMA x", "CREATE ROLE x", "DROP TABLE schema_migrations"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(own.url(stack.layout).replace(f"/{own.database}?", f"/{other.database}?"))


async def test_every_envoy_says_who_called_it(people: People, stack: Platform) -> None:
    response = await people.http.get("/v1/products?limit=1&q=not-for-logs")
    request_id = response.headers["x-request-id"]
    expected = {"bff": "spiffe://backend.local/edge", "order": "spiffe://backend.local/bff", "edge": None}
    for name, peer in expected.items():
        for _ in range(60):
            logs = [
                path.read_text(encoding="utf-8")
                for path in stack.layout.logs.glob(f"{name}*.log")
                if "-at-" not in path.name
            ]
            lines = [json.loads(line) for text in logs for line in text.splitlines() if request_id in line]
            found = [line for line in lines if line["event"] == "request"]
            if found:
                break
            await asyncio.sleep(0.1)
        assert found[0]["peer"] == peer
        assert found[0]["duration_ms"] >= 0
        assert "not-for-logs" not in json.dumps(found)
        if name == "edge":
            assert found[0]["upstream_ms"] is not None
            assert found[0]["filter_ms"] is not None
    with inside.another(stack, "edge", Options(without=("access_log",))) as own:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{own.port('public')}/v1/products?limit=1")
        assert response.status_code == 200
        # Envoy writes once a second.
        await asyncio.sleep(1.5)
        (log,) = stack.layout.logs.glob("edge-at-*.log")
        assert response.headers["x-request-id"] not in log.read_text(encoding="utf-8")


async def test_metrics_and_probes_are_on_the_ops_side_only(people: People, stack: Platform) -> None:
    for path in (
        "/metrics",
        "/metrics/envoy",
        "/stats",
        "/config_dump",
        "/healthz/ready",
        "/healthz/traffic",
        "/quitquitquit",
    ):
        assert (await people.http.get(path)).status_code == 404
    async with httpx.AsyncClient() as client:
        for name in processes(stack):
            ops = stack.status["endpoints"][f"{name}_ops"]
            assert "envoy_cluster_upstream_rq_total" in (await client.get(f"{ops}/metrics/envoy")).text
            assert (await client.get(f"{ops}/config_dump")).status_code == 404
            # Everything there is read, nothing is done.
            assert (await client.post(f"{ops}/metrics/envoy")).status_code == 403


async def test_one_exposition_has_all_that_a_process_counts_and_not_more_than_somebody_reads(
    people: People, stack: Platform
) -> None:
    trace = f"{uuid.uuid4().hex}"
    await people.http.get("/v1/products?limit=1", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    async with httpx.AsyncClient(headers={"accept": "application/openmetrics-text"}) as client:
        for name in processes(stack):
            answer = await client.get(f"{stack.status['endpoints'][f'{name}_ops']}/metrics")
            read = prometheus_families if name == "edge" else open_metrics_families
            assert answer.headers["content-type"].startswith(
                "text/plain" if name == "edge" else "application/openmetrics-text; version=1.0.0"
            )
            families = {family.name: family for family in read(answer.text)}
            assert "envoy_server_live" in families
            # Of all 5,600 once, and of each process's some hundreds.
            of_envoy = [s for f in families.values() for s in f.samples if s.name.startswith("envoy_")]
            assert 50 < len(of_envoy) < 450, name
            if name != "edge":
                assert {"backend_event_loop_lag_seconds", "process_cpu_seconds"} <= families.keys()
