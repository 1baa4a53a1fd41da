"""`make bench`: the platform beside pgbench running the same SQL, in one run; writes docs/performance.md.

Starts a stack of its own (every port 5,000 above the default), seeds 100,000 orders, and measures each scenario with k6 (thresholds) and,
where it is installed, wrk (peak rates). Ratios are taken within the run, because machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import httpx
import layers
import profile_hot_path
import topologies
import valkey_clients
from contracts.http import models
from contracts.http.client import BackendClient
from cpu import CpuWatch
from devstack.layout import ROOT, Layout
from devstack.secrets import load_or_create
from measured import HotRead, Measured, Scenario
from page import page

from devstack import postgres, services

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
OFFSET = 5000
CONCURRENCY = (1, 8, 32)
ACCOUNTS = 40
READ_SQL = "SELECT orders.*, order_items.* FROM orders JOIN order_items ON order_items.order_id = orders.id WHERE orders.id = :id ORDER BY order_items.line_no;"
# Limits are enforced, and never reached.
SCALE = ("--rate-limit-scale", "10000")


class Bench:
    """One run."""

    def __init__(self, layout: Layout, seconds: int, reads: int) -> None:
        self.layout = layout
        self.seconds = seconds
        self.reads = reads
        self.url = layout.endpoints(())["public"]
        self.secrets = load_or_create(layout.secrets)

    async def prepare(self) -> None:
        """Seed the database and make the accounts, the order and the stock of the scenarios."""
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
        state = json.loads(self.layout.state_file.read_text())["demo"]
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
                await admin.adjust_stock(product.id, models.StockAdjustment(delta=10_000_000, reason="bench"))
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
        environment = {
            **os.environ, "URL": self.url, "SCENARIO": scenario, "VUS": str(connections), "SECONDS": str(self.seconds),
            "TOKEN": self.token, "ORDER": self.order.id, "PRODUCTS": ",".join(self.products),
            "ACCOUNTS": json.dumps([{"email": a.email, "password": a.password} for a in self.accounts]),
        }  # fmt: skip
        watch = CpuWatch(self.layout)
        done = subprocess.run(
            [str(BIN / "k6"), "run", "--quiet", "--no-usage-report", str(HERE / "scenario.js")],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        cpu = watch.percent()
        if done.returncode != 0:
            raise SystemExit(f"{scenario} at {connections}: a threshold was broken\n{done.stdout}\n{done.stderr}")
        found = json.loads(done.stdout[done.stdout.index("{") :])
        return Scenario(scenario, connections, found["rate"], found["p50"], found["p99"], cpu)

    def wrk(self, path: str, connections: int) -> HotRead | None:
        """By wrk, or None where it is not installed."""
        wrk = shutil.which("wrk")
        if wrk is None:
            return None
        output = subprocess.run(
            [wrk, "-t1", f"-c{connections}", f"-d{self.seconds}", "--latency",
             "-H", f"Authorization: Bearer {self.token}", self.url + path],
            capture_output=True, text=True, check=True,
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

    async def hot_read(self, url: str | None = None) -> HotRead:
        """The order read at 32 connections: by wrk, or by k6 where wrk is not installed."""
        await self.renew_token()
        usual, self.url = self.url, url or self.url
        try:
            measured = self.wrk(f"/v1/orders/{self.order.id}", 32)
            if measured is None:
                result = self.k6("order_read", 32)
                measured = HotRead(result.rate, result.p99, int(result.rate * self.seconds))
        finally:
            self.url = usual
        return measured

    def pgbench(self, connections: int) -> float:
        """The read's SQL by pgbench, prepared, transactions a second."""
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(READ_SQL.replace(":id", f"'{self.order.id}'") + "\n")
            script.flush()
            output = subprocess.run(
                [str(postgres.BINARIES / "pgbench"), "--no-vacuum", "--client", str(connections), "--jobs", "1",
                 "--time", str(self.seconds), "--protocol", "prepared", "--file", script.name,
                 postgres.superuser_url(self.layout, self.secrets, "orderdb")],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
        return float(output.split("tps = ")[1].split()[0])

    async def million_reads(self) -> list[tuple[int, float]]:
        """Hot reads, one measurement after another; the Envoy processes' resident memory in MiB after each."""
        memory = [(0, self._memory())]
        wrk = shutil.which("wrk")
        done = 0
        while wrk is not None and done < self.reads:
            await self.renew_token()
            measured = self.wrk(f"/v1/orders/{self.order.id}", 32)
            if measured is not None:
                done += measured.requests
            memory.append((done, self._memory()))
        return memory

    def _memory(self) -> float:
        return sum(p.memory_info().rss for p in CpuWatch.envoys(self.layout).values()) / 2**20


async def run(layout: Layout, seconds: int, reads: int) -> Measured:
    """Measure everything."""
    bench = Bench(layout, seconds, reads)
    await bench.prepare()
    baseline = bench.pgbench(32)
    print(f"pgbench, the same SQL, 32 connections: {baseline:,.0f}/s", flush=True)
    results: list[Scenario] = []
    for scenario in ("login", "products", "order_read", "order_create"):
        for connections in CONCURRENCY:
            await bench.renew_token()
            result = bench.k6(scenario, connections)
            results.append(result)
            print(f"{scenario} {connections}: {result.rate:,.0f}/s p99 {result.p99:.1f} ms", flush=True)
    await bench.renew_token()
    peak = bench.wrk(f"/v1/orders/{bench.order.id}", 32)
    baseline_after = bench.pgbench(32)
    clients = await valkey_clients.measure(services.valkey_url(layout, bench.secrets))
    await bench.renew_token()
    profile = profile_hot_path.profile(layout, lambda: bench.wrk(f"/v1/orders/{bench.order.id}", 32))
    memory = await bench.million_reads()
    up = ["--data-dir", str(layout.data_dir), "--port-offset", str(OFFSET), *SCALE]
    layer = await layers.measure(layout, up, bench.hot_read)
    subprocess.run([BIN / "backend", "down", "--data-dir", str(layout.data_dir)], check=True)
    subprocess.run([BIN / "backend", "up", "--detach", *up], check=True, capture_output=True)
    sidecars = await topologies.measure(layout, float(SCALE[1]), bench.hot_read)
    return Measured(
        seconds=seconds,
        scenarios=results,
        pgbench=(baseline + baseline_after) / 2,
        peak=peak,
        valkey_clients=clients,
        profile=profile,
        memory=memory,
        layer=layer,
        topologies=sidecars,
    )


def main() -> None:
    """Run the bench on a stack of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=6, help="length of one measurement")
    parser.add_argument("--reads", type=int, default=1_000_000, help="hot reads of the memory check")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        layout = Layout(Path(directory) / "stack", OFFSET)
        where = ["--data-dir", str(layout.data_dir)]
        subprocess.run(
            [str(BIN / "backend"), "up", "--detach", *where, "--port-offset", str(OFFSET), *SCALE], check=True
        )
        try:
            arguments.output.write_text(page(asyncio.run(run(layout, arguments.seconds, arguments.reads))))
        finally:
            subprocess.run([str(BIN / "backend"), "down", *where], check=True)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
