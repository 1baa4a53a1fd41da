"""What the series of the processes stand for: operations, calls, statements, and the arrows between processes.

Whose a failure is says the error table (`api/errors.yaml`): a reason whose status is 500 or more is our fault, any other is a
mistake or a limit of who asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

from chassis.metrics.families import OTHER
from mesh.topology import EDGE, SERVICES, STATE, Service, row, service_of

from devstack.console import exposition
from devstack.console.history import Key, Part

CLIENTS = "clients"
POSTGRES = "postgres"
# All requests of clients, as the edge sees them.
REQUESTS: Key = ("edge", "all")

# Of each kind of work its family of counters, and that of its latencies.
_KINDS = {
    "backend_http_requests_total": ("http", "operation"),
    "backend_rpc_requests_total": ("rpc", "method"),
    "backend_database_uses_total": ("database", "statement"),
    "backend_worker_runs_total": ("worker", "worker"),
}
_LATENCIES = {
    "backend_http_request_duration_seconds_bucket": ("http", "operation"),
    "backend_rpc_request_duration_seconds_bucket": ("rpc", "method"),
    "backend_database_use_duration_seconds_bucket": ("database", "statement"),
}
_OF_CLIENTS = "envoy_http_downstream_rq_xx"
_LATENCY_OF_CLIENTS = "envoy_http_downstream_rq_time_bucket"
_OF_CLUSTERS = "envoy_cluster_upstream_rq_xx"
_CALLS, _COMMANDS, _USES = "backend_calls_total", "backend_valkey_commands_total", "backend_database_uses_total"
# Of operations, and of new connections.
_LIMITER_FAILED = ("envoy_cluster_ratelimit_error", "envoy_ratelimit_error")
_CPU, _REFUSED = "process_cpu_seconds_total", "backend_admission_refused_total"
_LOST_SPANS = "backend_spans_total"
# Readiness asks whether the server of state takes writes; all else is written there by scripts.
_CHECK = (STATE, "SET")
# Uses of the database that statements are parts of; their errors are told of these.
_WHOLE_USES = ("connection", "transaction")

COUNTED = frozenset({
    *_KINDS, *_LATENCIES, _OF_CLIENTS, _LATENCY_OF_CLIENTS, _OF_CLUSTERS, _CALLS, _COMMANDS, _USES, *_LIMITER_FAILED,
    _CPU, _REFUSED, _LOST_SPANS,
})  # fmt: skip


def link(caller: str, callee: str) -> Key:
    """The arrow from one to another."""
    return "link", f"{caller}>{callee}"


@lru_cache(maxsize=20_000)
def meaning(process: str, series: str) -> tuple[Part, ...]:
    """What a series of a process counts (`history.Meaning`)."""
    return tuple(_parts(process, exposition.name(series), dict(exposition.labels(series))))


def _parts(process: str, name: str, labels: dict[str, str]) -> Iterator[Part]:
    service = service_of(process)
    outcome = labels.get("outcome", "")
    if name in _KINDS:
        kind, label = _KINDS[name]
        of_kind = _use if name == _USES else _part
        yield of_kind((kind, f"{service} {labels.get(label, '')}"), outcome)
    if name in _LATENCIES:
        kind, label = _LATENCIES[name]
        yield Part((kind, f"{service} {labels.get(label, '')}"), bucket=_bound(labels))
    if name == _CALLS and (callee := _server_of(labels.get("method", ""))):
        yield _part(link(service, callee), outcome)
    elif name == _USES and labels.get("statement") in _WHOLE_USES:
        yield _use(link(service, POSTGRES), outcome)
    elif name == _COMMANDS and (server := _valkey_of(service)) and (server, labels.get("command")) != _CHECK:
        yield _part(link(service, server), outcome)
    elif name == _CPU:
        yield Part(("cpu", process))
    elif name == _REFUSED:
        yield Part(("lane", f"{process} {labels.get('class', '')}"), refused=True)
    elif name == _LOST_SPANS and outcome in ("dropped", "failed"):
        yield Part(("lost spans", process))
    elif service == EDGE.name:
        yield from _of_edge(name, labels)


def _of_edge(name: str, labels: dict[str, str]) -> Iterator[Part]:
    cluster, status = labels.get("envoy_cluster_name", ""), labels.get("envoy_response_code_class", "")
    refused, failed = status == "4", status == "5"
    # The limiter is asked about operations and, by a cluster of its own, about connections.
    callee = cluster.partition("_")[0]
    if name == _OF_CLUSTERS and callee in EDGE.upstreams:
        yield Part(link(EDGE.name, callee), refused=refused, failed=failed)
    elif name in _LIMITER_FAILED:
        yield Part(link(EDGE.name, EDGE.limiter), failed=True)
    elif labels.get("envoy_http_conn_manager_prefix") == "ingress":
        if name == _OF_CLIENTS:
            yield Part(REQUESTS, refused=refused, failed=failed)
            yield Part(link(CLIENTS, EDGE.name), refused=refused, failed=failed)
        elif name == _LATENCY_OF_CLIENTS:
            # Envoy's are milliseconds.
            yield Part(REQUESTS, bucket=_bound(labels) / 1000)


def _part(key: Key, outcome: str) -> Part:
    status = _status(outcome)
    return Part(key, refused=400 <= status < 500, failed=status >= 500)


def _use(key: Key, outcome: str) -> Part:
    """Of the database: what was raised while it was used is a constraint's or a rule's of the domain, seldom a fault."""
    return Part(key, refused=True) if outcome == OTHER else _part(key, outcome)


def _bound(labels: dict[str, str]) -> float:
    try:
        return float(labels.get("le", "inf"))
    except ValueError:
        return float("inf")


@cache
def _status(outcome: str) -> int:
    """What a client would be told; 200 for what went well, and for one who went away."""
    if outcome in ("OK", "CANCELLED"):
        return 200
    # What it imports takes longer than all the rest: it is asked for when there is the first error.
    from contracts.errors import ERRORS

    return ERRORS[outcome].http_status if outcome in ERRORS else 500


def _server_of(method: str) -> str:
    """Who answers `order.v1.OrderService/GetOrder`: whose contract has that package."""
    return _servers().get(method.partition("/")[0].rpartition(".")[0], "")


@cache
def _servers() -> dict[str, str]:
    """By package: `proto/order/v1/order.proto` has order.v1 (buf's PACKAGE_DIRECTORY_MATCH)."""
    return {
        contract.removeprefix("proto/").rpartition("/")[0].replace("/", "."): service.name
        for service in SERVICES
        for contract in service.contracts
    }


def _valkey_of(service: str) -> str:
    try:
        found = row(service)
    except KeyError:
        return ""
    return found.valkey.server if isinstance(found, Service) and found.valkey is not None else ""
