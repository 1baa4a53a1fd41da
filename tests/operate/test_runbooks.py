"""Every command of docs/runbooks is run, in the order of its page."""

from __future__ import annotations

import os
import re
import subprocess

import httpx
import pytest
from devstack.layout import ROOT

from conftest import Platform

RUNBOOKS = ROOT / "docs" / "runbooks"
# What the commands of each page have to show.
SHOWN = {
    "README": [],
    "errors": [
        r"GET +/v1/orders +401|\"path\": ?\"/v1/orders\"",
        r"[1-9]\d* requests, \d+ failed",
        r"response_code_class=\"4\"",
    ],
    "log-level": [r"order +debug for \d+ s, then info", r"\"level\": ?\"debug\"|debug"],
    "backup-and-restore": ["orderdb.dump", "userdb.dump", "restored; everybody has to log in again"],
    "secrets": ["order-database", "the old ones are refused", "it signs from", "is revoked", "rotated", "expires"],
    "admins": [r"operator-\d+@example.com can log in"],
    "audit": [
        r'"action": "product.price_changed"',
        r'"actor": "user/',
        r"order +info +audit|audit +action=product.price_changed|product.price_changed",
        r'"action": "user.logged_in"',
        r"\n[1-9]\d*\n$",
    ],
    "migrations": [r"the databases have every migration\n(.|\n)*the databases have every migration"],
    "valkey-full": [r'user \{"ready":true\} backend_degraded\{check="valkey"\} 0', r"\[\("],
    "hangs-or-slow": [
        r"postgresql +ok",
        r"Sweep\._again_and_again",
        "traffic",
        "cpu in",
        "inuse_space in",
        "order.pb.gz",
    ],
    "replicas": [r'\{"ready":true\}', "envoy_cluster_membership_healthy", "order restarted"],
    "disk-full": ["Use%", "postgres restarted", "ready"],
    "budget-burns": [r"ready", "envoy_vhost_route_upstream_rq_xx{", r"edge  (GET|POST|PUT|PATCH|DELETE)|/v1/"],
    "process-down": [r"order +.*ready", "order restarted"],
    "check-fails": [r"postgresql +ok", "valkey-cache restarted"],
    "worker-not-running": [r"worker sweep +ok", "order restarted"],
    "pool-exhausted": ["backend_database_connections_max 10", r"blocked_by=\[\]"],
    "events-wait": [r"published by *\n *user +0", "nats restarted", r'\{"service": "order", "events": \d'],
    "events-lag": [
        r"consumer +waiting +in hand",
        "notification restarted",
        r'"consumer": "notification", "waiting": \d',
    ],
    "events-fail": [r"notification +ready", r"consumer +waiting +in hand", "notification restarted"],
    "dead-letters": ["there are no dead letters"],
    "mails-wait": [r"nothing waits|order_placed|welcome", "mailbox restarted"],
    "limiter-fails-open": [r'"valkey":"ok"', "backend_limiter_decisions_total", "limiter restarted"],
    "certificate-expires": ["expires", "envoy_sds_update_success", "rotated"],
    "spans-lost": [r'backend_spans_total\{outcome="sent"\}', "console restarted"],
}


@pytest.mark.parametrize("page", sorted(path.stem for path in RUNBOOKS.glob("*.md")))
def test_what_a_runbook_says_works(stack: Platform, page: str) -> None:
    text = (RUNBOOKS / f"{page}.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https:)([^)#]+)\)", text):
        assert (RUNBOOKS / link).exists(), link
    # What it looks at, there is.
    assert httpx.get(f"{stack.url}/v1/products").status_code == 200
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=ROOT,
        env={
            **os.environ,
            "API": stack.url,
            "EDGE_OPS": stack.status["endpoints"]["edge_ops"],
            "BACKEND_DATA_DIR": str(stack.layout.data_dir),
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for pattern in SHOWN[page]:
        assert re.search(pattern, done.stdout), (pattern, done.stdout)
