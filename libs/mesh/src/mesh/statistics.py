"""Which of its statistics an Envoy keeps: those that a dashboard, an alert, a runbook, a test or our own code looks at.

An edge has 1,200 of them, which are 2,200 series of Prometheus; this leaves about a tenth. Envoy does not even count what is
not kept. To see all of them, leave the policy out: `backend up --without statistics`.

What a series is called: `cluster.bff.upstream_rq_total` is `envoy_cluster_upstream_rq_total{envoy_cluster_name="bff"}`.
"""

from __future__ import annotations

from collections.abc import Mapping

# By scope, a regular expression (RE2) of the beginning of the name; then the rest of the name.
_OF_CLIENTS = (
    # Rate, errors, duration.
    "downstream_rq_total", "downstream_rq_completed", r"downstream_rq_[1-5]xx", "downstream_rq_time", "downstream_rq_active",
    # Who does not behave, and who is refused for it (docs/network.md).
    "downstream_rq_rx_reset", "downstream_rq_too_many_premature_resets", "downstream_rq_timeout", "downstream_rq_idle_timeout",
    "downstream_rq_header_timeout", "downstream_rq_too_large", "downstream_rq_overload_close", "rq_overload_local_reply",
    "downstream_cx_protocol_error", "downstream_cx_idle_timeout", "downstream_cx_max_duration_reached",
    "downstream_cx_total", "downstream_cx_active", "downstream_cx_destroy",
    r"jwt_authn\.(allowed|denied|jwks_fetch_failed|jwks_fetch_success)", r"rbac\.(allowed|denied)",
)  # fmt: skip
_OF_SERVICES = (
    "upstream_rq_total", r"upstream_rq_[1-5]xx", "upstream_rq_time", "upstream_rq_active", "upstream_rq_pending_active",
    "upstream_rq_timeout", "upstream_rq_rx_reset", "upstream_rq_tx_reset", "upstream_rq_pending_overflow",
    "upstream_cx_total", "upstream_cx_active", "upstream_cx_destroy", "upstream_cx_connect_fail", "upstream_cx_connect_timeout",
    "upstream_cx_protocol_error", "upstream_cx_overflow", "upstream_cx_none_healthy",
    # Who is left out, and why.
    "membership_total", "membership_healthy", "lb_healthy_panic",
    r"outlier_detection\.ejections_(active|overflow|enforced_total|detected_consecutive_(5xx|gateway_failure|local_origin_failure))",
    r"health_check\.(failure|network_failure)", r"circuit_breakers\.default\.(cx|rq|rq_pending)_open",
    # Mutual TLS.
    r"ssl\.(handshake|connection_error|fail_verify_error|fail_verify_san|fail_verify_no_cert)",
    r"ssl\.certificate\.[a-z]+\.expiration_unix_time_seconds",
    # What the limiter said.
    r"ratelimit\.(ok|over_limit|error|failure_mode_allowed)",
)  # fmt: skip
STATISTICS: Mapping[str, tuple[str, ...]] = {
    # Not of the probes' own listeners.
    r"http\.(ingress|egress)\.": _OF_CLIENTS,
    # By class of operation, of which each is a scope (edge.yaml.j2): what clients are promised is measured here.
    r"vhost\.public\.route\.[a-z]+\.": (r"upstream_rq_[1-5]xx", "upstream_rq_time"),
    r"http\.ops\.": (r"rbac\.denied", "downstream_rq_total"),
    r"cluster\.[a-z0-9_]+\.": _OF_SERVICES,
    r"listener\.[^a].*\.": (
        "downstream_cx_active", "downstream_cx_overflow", "downstream_global_cx_overflow", "downstream_cx_overload_reject",
        "downstream_cx_transport_socket_connect_timeout",
        r"ssl\.(handshake|connection_error|fail_verify_error|fail_verify_san|fail_verify_no_cert)",
        r"ssl\.certificate\.[a-z]+\.expiration_unix_time_seconds",
    ),
    # Limits that are the edge's own, and the door.
    r"(address|local)\.http_local_rate_limit\.": ("ok", "rate_limited"),
    r"ratelimit\.connections\.": ("ok", "over_limit", "error", "failure_mode_allowed", "active"),
    r"overload\.": (r"envoy\.resource_monitors\.\w+\.pressure", r"envoy\.overload_actions\.\w+\.active",
                    r"envoy\.load_shed_points\.\w+\.shed_load"),
    r"server\.": ("uptime", "live", "state", "memory_allocated", "memory_heap_size", "total_connections"),
    r"(main_thread|workers)\.": ("watchdog_miss", "watchdog_mega_miss"),
    # Certificates and passwords that are replaced as files.
    r"sds\.[a-z]+\.": ("update_success", "update_rejected"),
    r"tracing\.opentelemetry\.": (r"spans_\w+",),
}  # fmt: skip
# Milliseconds: the bounds of the application's own histograms (chassis.metrics.families), which are in seconds.
BUCKETS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)


def kept() -> str:
    """A regular expression (RE2) of the whole names of all that is kept."""
    return "|".join(f"{scope}({'|'.join(names)})" for scope, names in STATISTICS.items())
