"""A stack under measurement: its data, and the load generators that call it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from functools import cached_property
from pathlib import Path

import httpx
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from cpu import CpuWatch
from devstack.layout import Layout
from devstack.secrets import Secrets, load_or_create
from measured import HotRead, Scenario, Steady

from devstack import postgres

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
ACCOUNTS = 40
READ_SQL = "SELECT orders.*, order_items.* FROM orders JOIN order_items ON order_items.order_id = orders.id WHERE orders.id = :id ORDER BY order_items.line_no;"


# Limits are enforced, and never reached.
RATE_LIMIT_SCALE = 10_000.0


class Bench:
    """One stack.

    Args:
        layout: where it is, or will be.
        seconds: length of one measurement.
    """

    def __init__(self, layout: Layout, seconds: int) -> None:
        self.layout = layout
        self.seconds = seconds
        self.url = layout.endpoints(())["public"]

    @cached_property
    def secrets(self) -> Secrets:
        """The stack's, which its start has made: where there are files and no stack, none is started."""
        return load_or_create(self.layout.secrets)

    def start(self, *without: str) -> None:
        """Start the stack, some policies left out."""
        left_out = [part for policy in without for part in ("--without", policy)]
        subprocess.run(
            [BIN / "backend", "up", "--detach", "--data-dir", self.layout.data_dir,
             "--port-offset", str(self.layout.port_offset), "--rate-limit-scale", str(RATE_LIMIT_SCALE), *left_out],
            check=True, capture_output=True,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop it; its data stays."""
        subprocess.run([BIN / "backend", "down", "--data-dir", self.layout.data_dir], check=True, capture_output=True)

    def seed(self) -> None:
        """A hundred thousand orders."""
        url = postgres.superuser_url(self.layout, self.secrets, "orderdb")
        subprocess.run(
            [
                str(postgres.BINARIES / "psql"),
                "--quiet",
                "--set",
                "ON_ERROR_STOP=1",
                url,
                "--file",
                str(HERE / "seed.sql"),
            ],
            check=True,
        )

    async def prepare(self) -> None:
        """Make the accounts, the order and the stock of the scenarios."""
        state = json.loads(self.layout.state_file.read_text(encoding="utf-8"))["demo"]
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            client = BackendClient(http)
            self.accounts = [
                models.LoginRequest(email=f"bench-{uuid.uuid4()}@example.com", password="bench password")  # noqa: S106
                for _ in range(ACCOUNTS)
            ]
            for account in self.accounts:
                await client.register(
                    models.RegisterRequest(email=account.email, password=account.password, display_name="Bench")
                )
            admin = BackendClient(http)
            login = models.LoginRequest(**state["admin"])
            admin.access_token = (await admin.login(login)).data.access_token
            # Enough of everything, so that a run sells nothing out; orders spread over the catalog as they do in life.
            catalog = (await client.list_products(limit=100)).data.items
            for product in catalog:
                await admin.adjust_stock(
                    product.id,
                    models.StockAdjustment(delta=10_000_000, reason="bench"),
                    idempotency_key=str(uuid.uuid4()),
                )
            self.products = [product.id for product in catalog]
            client.access_token = (await client.login(self.accounts[0])).data.access_token
            self.token = client.access_token
            body = models.CreateOrderRequest(
                items=[models.OrderLine(product_id=product, quantity=2) for product in self.products[:3]]
            )
            self.order = (await client.create_order(body, idempotency_key=str(uuid.uuid4()))).data

    async def renew_token(self) -> None:
        """An access token lives five minutes; a run is longer."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            self.token = (await BackendClient(http).login(self.accounts[0])).data.access_token

    def k6(self, scenario: str, connections: int) -> Scenario:
        """One scenario by k6; raises when a threshold is broken."""
        watch = CpuWatch(self.layout)
        found = self._k6(scenario, connections, self.seconds)
        return Scenario(scenario, connections, found["rate"], found["p50"], found["p99"], watch.percent())

    def steady(self, scenario: str, rate: float, seconds: int) -> Steady:
        """One scenario by k6, so many requests a second whatever becomes of them."""
        found = self._k6(scenario, 200, seconds, RATE=str(round(rate)))
        return Steady(rate, int(found["requests"]), int(found["failed"]), int(found["unsent"]))

    def _k6(self, scenario: str, connections: int, seconds: int, **more: str) -> dict[str, float]:
        environment = {
            **os.environ, "URL": self.url, "SCENARIO": scenario, "VUS": str(connections), "SECONDS": str(seconds),
            "TOKEN": self.token, "ORDER": self.order.id, "PRODUCTS": ",".join(self.products),
            "ACCOUNTS": json.dumps([{"email": a.email, "password": a.password} for a in self.accounts]), **more,
        }  # fmt: skip
        done = subprocess.run(
            [str(BIN / "k6"), "run", "--quiet", "--no-usage-report", str(HERE / "scenario.js")],
            env=environment, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"{scenario} at {connections}: a threshold was broken\n{done.stdout}\n{done.stderr}")
        found: dict[str, float] = json.loads(done.stdout[done.stdout.index("{") :])
        return found

    def wrk(self, path: str, connections: int, seconds: int | None = None) -> HotRead | None:
        """By wrk, or None where it is not installed."""
        wrk = shutil.which("wrk")
        if wrk is None:
            return None
        output = subprocess.run(
            [wrk, "-t1", f"-c{connections}", f"-d{seconds or self.seconds}", "--latency",
             "-H", f"Authorization: Bearer {self.token}", self.url + path],
            capture_output=True, encoding="utf-8", check=True,
        ).stdout  # fmt: skip
        if "Non-2xx" in output:
            raise SystemExit(f"wrk {path}: not all answers were a success\n{output}")
        rate = float(output.split("Requests/sec:")[1].split()[0])
        # The line of the latency distribution; "…99%" may stand in the statistics of the threads as well.
        latency = re.search(r"^\s+99%\s+([\d.]+)(us|ms|s)$", output, re.MULTILINE)
        if latency is None:
            raise SystemExit(f"wrk printed no latency distribution\n{output}")
        requests = re.search(r"^\s+(\d+) requests in", output, re.MULTILINE)
        if requests is None:
            raise SystemExit(f"wrk printed no number of requests\n{output}")
        p99 = float(latency[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[latency[2]]
        return HotRead(rate, p99, int(requests[1]))

    async def hot_read(self, url: str | None = None, seconds: int | None = None) -> HotRead:
        """The order read at 32 connections: by wrk, or by k6 where wrk is not installed."""
        await self.renew_token()
        usual, self.url = self.url, url or self.url
        try:
            measured = self.wrk(f"/v1/orders/{self.order.id}", 32, seconds)
            if measured is None:
                result = self.k6("order_read", 32)
                measured = HotRead(result.rate, result.p99, int(result.rate * self.seconds))
        finally:
            self.url = usual
        return measured

    def pgbench(self, connections: int) -> float:
        """The read's SQL by pgbench, prepared, transactions a second."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".sql") as script:
            script.write(READ_SQL.replace(":id", f"'{self.order.id}'") + "\n")
            script.flush()
            output = subprocess.run(
                [str(postgres.BINARIES / "pgbench"), "--no-vacuum", "--client", str(connections), "--jobs", "1",
                 "--time", str(self.seconds), "--protocol", "prepared", "--file", script.name,
                 postgres.superuser_url(self.layout, self.secrets, "orderdb")],
                capture_output=True, encoding="utf-8", check=True,
            ).stdout  # fmt: skip
        return float(output.split("tps = ")[1].split()[0])

    async def memory(self, reads: int) -> list[tuple[int, float]]:
        """Hot reads, one measurement after another; the Envoy processes' resident memory in MiB after each."""
        memory = [(0, self._memory())]
        wrk = shutil.which("wrk")
        done = 0
        while wrk is not None and done < reads:
            await self.renew_token()
            measured = self.wrk(f"/v1/orders/{self.order.id}", 32)
            if measured is not None:
                done += measured.requests
            memory.append((done, self._memory()))
        return memory

    def _memory(self) -> float:
        return sum(p.memory_info().rss for p in CpuWatch.envoys(self.layout).values()) / 2**20
