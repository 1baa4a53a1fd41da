"""The dashboards: of the platform, the edge, every service of the table, the processes, and what is sold.

Each service's follows from its row: what it serves, whom it calls, whether it has a database, a Valkey, tokens to verify.
"""

from __future__ import annotations

from collections.abc import Iterator

from contracts.errors import ERRORS

from mesh.observability.grafana import Dashboard, Panel, Query, Row
from mesh.observability.objectives import ROUTE
from mesh.topology import CACHE, EDGE, SERVICES, Service

# Of a dashboard's rates: four times the time between two samples, at least.
_LATELY = "[$__rate_interval]"
_QUANTILES = (0.5, 0.95, 0.99)
_PROCESS = "{{instance}}"
# By our fault: reasons whose HTTP status is 500 or more, and exceptions that are no reason.
_FAULTS = f'outcome=~"{"|".join([*(name for name, kind in ERRORS.items() if kind.http_status >= 500), "other"])}"'


def dashboards() -> Iterator[Dashboard]:
    """All of them."""
    yield _platform()
    yield _edge()
    yield from map(_service, SERVICES)
    yield _runtime()
    yield _business()


def _rate(metric: str, by: str, where: str = "") -> str:
    return (
        f"sum by ({by}) (rate({metric}{{{where}}}{_LATELY}))" if where else f"sum by ({by}) (rate({metric}{_LATELY}))"
    )


def _quantiles(histogram: str, where: str = "", *, exemplars: bool = False) -> list[Query]:
    """Of all together."""
    buckets = f"sum by (le) (rate({histogram}_bucket{{{where}}}{_LATELY}))"
    return [
        Query(
            f"histogram_quantile({part}, {buckets})", f"{part:.0%}", has_exemplars=exemplars and part == _QUANTILES[-1]
        )
        for part in _QUANTILES
    ]


def _quantile(histogram: str, by: str, where: str, part: float = 0.99) -> str:
    return f"histogram_quantile({part}, sum by (le, {by}) (rate({histogram}_bucket{{{where}}}{_LATELY})))"


def _platform() -> Dashboard:
    route = f"{{{{{ROUTE}}}}}"
    requests = "envoy_vhost_route_upstream_rq_xx"
    return Dashboard(
        "backend-platform",
        "Backend: the platform",
        "Is it well, and for whom is it not?",
        [
            Row(
                "Now",
                [
                    Panel("Alerts that fire", [Query('ALERTS{alertstate="firing"}')], kind="table", width=12,
                          says="Each has a page in docs/runbooks."),
                    Panel("Processes that answer", [Query("sum by (service) (up)", "{{service}}")], kind="stat", width=12,
                          bounds=(1, 0.5)),
                ],
            ),
            Row(
                "What clients are promised, by class of operation",
                [
                    Panel("The budget for failures burns", [Query("class:failed:burn_rate1h", "{{class}}")], kind="stat",
                          bounds=(1, 6), width=12, says="Times as fast as it would last for a month; of the last hour."),
                    Panel("The budget for slowness burns", [Query("class:slow:burn_rate1h", "{{class}}")], kind="stat",
                          bounds=(1, 6), width=12, says="Times as fast as it would last for a month; of the last hour."),
                    Panel("Requests", [Query(_rate(requests, ROUTE), route)], "reqps", stacked=True),
                    Panel("Failed", [Query(_rate(requests, ROUTE, 'envoy_response_code_class="5"'), route)], "reqps"),
                    Panel("99 % take less than", [Query(_quantile("envoy_vhost_route_upstream_rq_time", ROUTE, ""), route)],
                          "ms"),
                ],
            ),
            Row(
                "By service",
                [
                    Panel("Operations that fail, and why",
                          [Query(_rate("backend_http_requests_total", "operation, outcome", _FAULTS),
                                 "{{operation}} {{outcome}}")], "reqps"),
                    Panel("Calls that fail, and why",
                          [Query(_rate("backend_calls_total", "method, outcome", _FAULTS), "{{method}} {{outcome}}")],
                          "reqps"),
                    Panel("CPU", [Query(_rate("process_cpu_seconds_total", "instance"), _PROCESS)], "percentunit",
                          stacked=True, says="1 is one core. The edge does not tell its own."),
                ],
            ),
        ],
    )  # fmt: skip


def _edge() -> Dashboard:
    mine, ingress = f'service="{EDGE.name}"', f'service="{EDGE.name}",envoy_http_conn_manager_prefix="ingress"'
    cluster = "{{envoy_cluster_name}}"
    return Dashboard(
        "backend-edge",
        "Backend: the edge",
        "What clients send, what is refused, and who is behind.",
        [
            Row(
                "Clients",
                [
                    Panel("Answers by class of status",
                          [Query(_rate("envoy_http_downstream_rq_xx", "envoy_response_code_class", ingress),
                                 "{{envoy_response_code_class}}xx")], "reqps", stacked=True),
                    Panel("How long they take", _quantiles("envoy_http_downstream_rq_time", ingress), "ms"),
                    Panel("Connections", [Query(f"sum by (instance) (envoy_http_downstream_cx_active{{{ingress}}})", _PROCESS)]),
                ],
            ),
            Row(
                "Refused",
                [
                    Panel("By limits of this edge",
                          [Query(_rate("envoy_http_local_rate_limit_rate_limited", "envoy_local_http_ratelimit_prefix", mine),
                                 "{{envoy_local_http_ratelimit_prefix}}")],
                          "reqps", says="address: all requests of one; local: calls of one operation by one caller."),
                    Panel("By the limiter",
                          [Query(_rate("backend_limiter_decisions_total", "domain, decision"), "{{domain}} {{decision}}")],
                          "reqps", says="What has failed, edges let pass."),
                    Panel("Tokens", [Query(_rate("envoy_http_jwt_authn_denied", "instance", mine), "refused"),
                                     Query(_rate("envoy_http_jwt_authn_allowed", "instance", mine), "taken")], "reqps"),
                ],
            ),
            Row(
                "Who is behind",
                [
                    Panel("Replicas left out",
                          [Query(f"sum by (envoy_cluster_name) (envoy_cluster_membership_total{{{mine}}} "
                                 f"- envoy_cluster_membership_healthy{{{mine}}})", cluster)]),
                    Panel("99 % of calls take less than",
                          [Query(_quantile("envoy_cluster_upstream_rq_time", "envoy_cluster_name", mine), cluster)], "ms"),
                    Panel("Certificates are valid for",
                          [Query("min by (instance) (envoy_listener_ssl_certificate_expiration_unix_time_seconds) - time()",
                                 _PROCESS)], "s"),
                ],
            ),
        ],
    )  # fmt: skip


def _service(service: Service) -> Dashboard:
    mine = f'service="{service.name}"'
    kind, label = ("rpc", "method") if service.serves_grpc else ("http", "operation")
    named, requests = f"{{{{{label}}}}}", f"backend_{kind}_request"
    rows = [
        Row(
            "What it answers",
            [
                Panel("Requests", [Query(_rate(f"{requests}s_total", label, mine), named)], "reqps", stacked=True),
                Panel("Outcomes but OK",
                      [Query(_rate(f"{requests}s_total", f"{label}, outcome", f'{mine},outcome!="OK"'),
                             f"{named} {{{{outcome}}}}")], "reqps"),
                Panel("How long they take", _quantiles(f"{requests}_duration_seconds", mine, exemplars=True), "s"),
                Panel("99 % take less than", [Query(_quantile(f"{requests}_duration_seconds", label, mine), named)], "s"),
                Panel("Calls that have a slot",
                      [Query(f"sum by (class) (backend_admission_running{{{mine}}})", "{{class}}")],
                      says="A lane's slots are backend_admission_slots (docs/adr/0012-bulkheads.md)."),
                Panel("Calls refused for want of one",
                      [Query(_rate("backend_admission_refused_total", "class", mine), "{{class}}")], "reqps"),
            ],
        )
    ]  # fmt: skip
    if service.upstreams:
        rows.append(Row("Whom it calls", list(_calls(mine))))
    if service.database is not None:
        rows.append(Row("PostgreSQL", list(_database(mine))))
    if service.valkey is not None:
        rows.append(Row("Valkey", list(_valkey(mine, is_cache=service.valkey.server == CACHE))))
    rows.append(Row("Itself", list(_itself(mine, verifies=bool(service.tokens)))))
    return Dashboard(f"backend-{service.name}", f"Backend: {service.name}", f"The service {service.name}.", rows)


def _calls(mine: str) -> Iterator[Panel]:
    yield Panel("Calls", [Query(_rate("backend_calls_total", "method", mine), "{{method}}")], "reqps", stacked=True)
    failed = _rate("backend_calls_total", "method, outcome", f"{mine},{_FAULTS}")
    yield Panel("Calls that fail", [Query(failed, "{{method}} {{outcome}}")], "reqps")
    times = _quantile("backend_call_duration_seconds", "method", mine)
    yield Panel("99 % take less than", [Query(times, "{{method}}", has_exemplars=True)], "s")
    yield Panel("Retries", [Query(_rate("backend_call_retries_total", "result", mine), "{{result}}")], "reqps")


def _database(mine: str) -> Iterator[Panel]:
    users = f"sum by (instance) (backend_database_users{{{mine}}})"
    yield Panel(
        "Who has a connection or waits for one",
        [Query(users, _PROCESS), Query(f"max(backend_database_connections_max{{{mine}}})", "connections of a process")],
    )
    statements = _rate("backend_database_uses_total", "statement", mine)
    yield Panel("Statements", [Query(statements, "{{statement}}")], "reqps")
    times = _quantile("backend_database_use_duration_seconds", "statement", mine)
    yield Panel("99 % take less than", [Query(times, "{{statement}}")], "s")


def _valkey(mine: str, *, is_cache: bool) -> Iterator[Panel]:
    commands = _rate("backend_valkey_commands_total", "command, outcome", mine)
    yield Panel("Commands", [Query(commands, "{{command}} {{outcome}}")], "reqps")
    times = _quantile("backend_valkey_command_duration_seconds", "command", mine)
    yield Panel("99 % take less than", [Query(times, "{{command}}")], "s")
    if is_cache:
        reads = _rate("backend_cache_reads_total", "cache, result", mine)
        yield Panel("Copies that were read", [Query(reads, "{{cache}} {{result}}")], "reqps", stacked=True)
    waiting = f"sum by (instance) (backend_valkey_waiting{{{mine}}})"
    yield Panel("Commands that wait", [Query(waiting, _PROCESS)])


def _itself(mine: str, *, verifies: bool) -> Iterator[Panel]:
    yield Panel("CPU", [Query(_rate("process_cpu_seconds_total", "instance", mine), _PROCESS)], "percentunit")
    yield Panel("Memory", [Query(f"process_resident_memory_bytes{{{mine}}}", _PROCESS)], "bytes")
    yield Panel("Work waits in the event loop", [Query(f"backend_event_loop_lag_seconds{{{mine}}}", _PROCESS)], "s")
    yield Panel("Checks that fail", [Query(f"backend_degraded{{{mine}}}", "{{instance}} {{check}}")])
    yield Panel("Workers that run", [Query(f"backend_worker_running{{{mine}}}", "{{instance}} {{worker}}")])
    if verifies:
        tokens = _rate("backend_token_verifications_total", "result", mine)
        yield Panel("Access tokens", [Query(tokens, "{{result}}")], "reqps")


def _runtime() -> Dashboard:
    def each(title: str, promql: str, unit: str = "short", legend: str = _PROCESS, says: str = "") -> Panel:
        return Panel(title, [Query(promql, legend)], unit, says=says)

    return Dashboard(
        "backend-runtime",
        "Backend: processes",
        "What each process takes of its machine.",
        [
            Row(
                "Process",
                [
                    each("CPU", _rate("process_cpu_seconds_total", "instance"), "percentunit"),
                    each("Memory", "process_resident_memory_bytes", "bytes"),
                    each("Open files, of those allowed", "process_open_fds / process_max_fds", "percentunit"),
                    each("Started", "time() - process_start_time_seconds", "s", says="A line that falls is a restart."),
                ],
            ),
            Row(
                "Python",
                [
                    each("Work waits in the event loop", "backend_event_loop_lag_seconds", "s"),
                    each("Garbage collections", _rate("python_gc_collections_total", "instance, generation"),
                         legend="{{instance}} {{generation}}"),
                    each("Worker restarts", _rate("backend_worker_restarts_total", "instance, worker"),
                         legend="{{instance}} {{worker}}"),
                ],
            ),
            Row(
                "Envoy",
                [
                    each("Heap", "envoy_server_memory_allocated", "bytes"),
                    each("Overload", "envoy_overload_envoy_resource_monitors_fixed_heap_pressure / 100", "percentunit",
                         says="From 80 % on idle connections go sooner, from 95 % on requests are refused."),
                    each("Its loop hangs", _rate("envoy_workers_watchdog_mega_miss", "instance")),
                    each("Handshakes that fail", _rate("envoy_listener_ssl_connection_error", "instance"), "reqps"),
                ],
            ),
            Row(
                "What it tells of itself",
                [
                    each("Spans", _rate("backend_spans_total", "instance, outcome"), legend="{{instance}} {{outcome}}"),
                    each("Requests whose spans were kept", _rate("backend_traces_kept_total", "reason"), legend="{{reason}}"),
                    each("Lines of logs that were lost", _rate("backend_log_lines_lost_total", "instance")),
                ],
            ),
        ],
    )  # fmt: skip


def _business() -> Dashboard:
    logins, orders = 'method="user.v1.SessionService/LogIn"', 'method="order.v1.OrderService/CreateOrder"'
    return Dashboard(
        "backend-business",
        "Backend: what is sold",
        "Orders, payments, stock, and who comes in.",
        [
            Row(
                "Orders",
                [
                    Panel("Steps", [Query(_rate("backend_order_transitions_total", "transition"), "{{transition}}")], "cps"),
                    Panel("Payments", [Query(_rate("backend_payments_total", "outcome"), "{{outcome}}")], "cps", stacked=True),
                    Panel("Orders that were not placed, and why",
                          [Query(_rate("backend_rpc_requests_total", "outcome", f'{orders},outcome!="OK"'), "{{outcome}}")],
                          "cps", says="OUT_OF_STOCK is a stock-out."),
                    Panel("Idempotency keys", [Query(_rate("backend_idempotent_requests_total", "result"), "{{result}}")], "cps"),
                    Panel("Background steps that fail", [Query(_rate("backend_sweep_failures_total", "step"), "{{step}}")], "cps"),
                ],
            ),
            Row(
                "Who comes in",
                [
                    Panel("Logins by result", [Query(_rate("backend_rpc_requests_total", "outcome", logins), "{{outcome}}")], "cps"),
                    Panel("Sessions that began", [Query(_rate("backend_sessions_granted_total", "crowded"), "crowded: {{crowded}}")],
                          "cps", says="Crowded are those of a network that began too many."),
                    Panel("Refresh tokens", [Query(_rate("backend_refresh_tokens_total", "result"), "{{result}}")], "cps",
                          says="Reused is somebody with a token that another has used."),
                ],
            ),
        ],
    )  # fmt: skip
