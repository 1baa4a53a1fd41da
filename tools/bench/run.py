"""`make bench`: the platform beside pgbench running the same SQL, in one run; writes docs/performance.md.

Starts a stack of its own (every port 5,000 above the default), seeds 100,000 orders, and measures each scenario with k6 (thresholds) and,
where it is installed, wrk (peak rates). Ratios are taken within the run, because machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform as machine
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import layers
import profile_hot_path
import psutil
import topologies
import valkey_clients
from contracts.http import models
from contracts.http.client import BackendClient
from devstack.layout import ROOT, Layout
from devstack.secrets import load_or_create

from devstack import postgres, services

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
OFFSET = 5000
CONCURRENCY = (1, 8, 32)
ACCOUNTS = 40
READ_SQL = "SELECT orders.*, order_items.* FROM orders JOIN order_items ON order_items.order_id = orders.id WHERE orders.id = :id ORDER BY order_items.line_no;"
FLOOR_RATIO, FLOOR_P99_MS, FLOOR_CREATE, MOST_LAYER = 0.05, 45.0, 0.25, 0.20
# Limits are enforced, and never reached.
SCALE = ("--rate-limit-scale", "10000")


@dataclass(frozen=True)
class Result:
    """One scenario at one concurrency."""

    scenario: str
    connections: int
    rate: float
    p50: float
    p99: float
    # Percent of one core, by process, while it ran.
    cpu: dict[str, float]


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

    def k6(self, scenario: str, connections: int) -> Result:
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
        return Result(scenario, connections, found["rate"], found["p50"], found["p99"], cpu)

    def wrk(self, path: str, connections: int) -> tuple[float, float] | None:
        """Requests a second and p99 in milliseconds by wrk, or None where it is not installed."""
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
        return rate, float(latency[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[latency[2]]

    async def hot_read(self, url: str | None = None) -> tuple[float, float]:
        """The order read at 32 connections: by wrk, or by k6 where wrk is not installed."""
        await self.renew_token()
        usual, self.url = self.url, url or self.url
        try:
            measured = self.wrk(f"/v1/orders/{self.order.id}", 32)
            if measured is None:
                result = self.k6("order_read", 32)
                measured = result.rate, result.p99
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
            started = time.monotonic()
            measured = self.wrk(f"/v1/orders/{self.order.id}", 32)
            if measured is not None:
                done += int(measured[0] * (time.monotonic() - started))
            memory.append((done, self._memory()))
        return memory

    def _memory(self) -> float:
        return sum(p.memory_info().rss for p in CpuWatch.envoys(self.layout).values()) / 2**20


class CpuWatch:
    """CPU time of each process of the stack between two moments."""

    def __init__(self, layout: Layout) -> None:
        self._processes = self.envoys(layout) | self._backing(layout)
        self._started = time.monotonic()
        self._before = {name: self._seconds(process) for name, process in self._processes.items()}

    @staticmethod
    def envoys(layout: Layout) -> dict[str, psutil.Process]:
        """The Envoy of each hosted process."""
        state = json.loads(layout.state_file.read_text())["processes"]
        pids = {p["name"]: p["pid"] for p in state if p["name"] in ("edge", "bff", "user", "order", "limiter")}
        return {name: psutil.Process(pid).children()[0] for name, pid in pids.items()}

    @staticmethod
    def _backing(layout: Layout) -> dict[str, psutil.Process]:
        state = json.loads(layout.state_file.read_text())["processes"]
        return {p["name"]: psutil.Process(p["pid"]) for p in state if p["name"] in ("postgres", "valkey")}

    @staticmethod
    def _seconds(process: psutil.Process) -> float:
        total = 0.0
        for one in [process, *process.children(recursive=True)]:
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def percent(self) -> dict[str, float]:
        """Percent of one core since the start."""
        elapsed = time.monotonic() - self._started
        return {
            name: max(0.0, (self._seconds(process) - self._before[name]) / elapsed * 100)
            for name, process in self._processes.items()
        }


async def run(layout: Layout, seconds: int, reads: int) -> str:
    """Measure everything; the page."""
    bench = Bench(layout, seconds, reads)
    await bench.prepare()
    baseline = bench.pgbench(32)
    print(f"pgbench, the same SQL, 32 connections: {baseline:,.0f}/s", flush=True)
    results: list[Result] = []
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
    return page(results, (baseline + baseline_after) / 2, peak, clients, profile, memory, seconds, layer, sidecars)


def page(
    results: list[Result],
    baseline: float,
    peak: tuple[float, float] | None,
    clients: dict[str, float],
    profile: str,
    memory: list[tuple[int, float]],
    seconds: int,
    layer: tuple[tuple[float, float], tuple[float, float], dict[str, float]],
    sidecars: dict[str, tuple[float, float]],
) -> str:
    """The Markdown of docs/performance.md."""
    by = {(r.scenario, r.connections): r for r in results}
    read, create = by["order_read", 32], by["order_create", 32]
    read_rate, read_p99 = peak or (read.rate, read.p99)
    processor = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        machine.processor(),
    )
    lines = [
        "# Performance\n",
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores ({processor}), Python "
        f"{machine.python_version()}, {seconds} s a measurement, 100,000 orders in the database, the load generator on the "
        "same cores. Ratios are taken within this run.\n",
        "## What was promised\n",
        "| promise | measured | holds |",
        "|---|---|---|",
        f"| order read, hot, 32 connections: at least {FLOOR_RATIO:.0%} of pgbench's rate for the same SQL | "
        f"{read_rate:,.0f}/s of {baseline:,.0f}/s = {read_rate / baseline:.1%} | {_yes(read_rate / baseline >= FLOOR_RATIO)} |",
        f"| its p99 under {FLOOR_P99_MS:.0f} ms | {read_p99:.1f} ms | {_yes(read_p99 < FLOOR_P99_MS)} |",
        f"| order create: at least a quarter of the order read's rate (both k6) | {create.rate:,.0f}/s of "
        f"{read.rate:,.0f}/s = {create.rate / read.rate:.0%} | {_yes(create.rate / read.rate >= FLOOR_CREATE)} |",
    ]
    (whole_rate, whole_p99), (bare_rate, bare_p99), shares = layer
    cost = 1 - whole_rate / bare_rate
    lines.append(
        f"| the network layer (docs/network.md): at most {MOST_LAYER:.0%} of the rate | {whole_rate:,.0f}/s with, "
        f"{bare_rate:,.0f}/s without = {cost:.1%} | {_yes(cost <= MOST_LAYER)} |"
    )
    if len(memory) > 2:
        half = memory[len(memory) // 2 :]
        growth = half[-1][1] - half[0][1]
        lines.append(
            f"| a million hot reads: memory flat | {memory[0][1]:.0f} MiB before, {memory[-1][1]:.0f} MiB after "
            f"{memory[-1][0]:,} reads; {growth:+.1f} MiB in the second half | {_yes(growth < 5)} |"
        )
    lines += [
        "\nThe order read is a session check in Valkey and a versioned cache read behind two Envoy processes with Python "
        "inside; peak rates are wrk's where it is installed, for k6 itself takes most of a core.\n",
        "## Scenarios (k6)\n",
        "| scenario | connections | req/s | p50 ms | p99 ms | CPU of one core: edge · bff · user · order · postgres · valkey |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        cpu = " · ".join(
            f"{r.cpu.get(name, 0):.0f} %" for name in ("edge", "bff", "user", "order", "postgres", "valkey")
        )
        lines.append(f"| {r.scenario} | {r.connections} | {r.rate:,.0f} | {r.p50:.1f} | {r.p99:.1f} | {cpu} |")
    lines += [
        "\nA login is one Argon2id hash (19 MiB, two passes) on purpose: its rate is the hash's.\n",
        "## Where the time of a hot read goes\n",
        profile,
        "## One hot read from Valkey, by client (`tools/bench/valkey_clients.py`)\n",
        "| client | CPU of an MGET |",
        "|---|---|",
        *(f"| {name} | {microseconds:.1f} µs |" for name, microseconds in clients.items()),
    ]
    lines += [
        "\n## What the network layer costs (`tools/bench/layers.py`)\n",
        f"The hot read at 32 connections: {whole_rate:,.0f}/s and p99 {whole_p99:.1f} ms with every policy, "
        f"{bare_rate:,.0f}/s and {bare_p99:.1f} ms with none; each share is the rate won by leaving the group out. "
        "On this machine the same configuration differs by about ten percent from one measurement to the next, so a single "
        "share below that says no more than that it is small.\n",
        "| left out | share of the rate |",
        "|---|---|",
        *(f"| {name} | {share:+.1%} |" for name, share in shares.items()),
    ]
    lines += [
        "\n## Sidecars (`tools/bench/topologies.py`)\n",
        "The hot read at 32 connections with the same policies; once as here, once with the BFF on uvicorn and Order on "
        "grpc.aio, an Envoy beside each.\n",
        "| topology | req/s | p99 ms |",
        "|---|---|---|",
        *(f"| {_TOPOLOGIES[name]} | {rate:,.0f} | {p99:.1f} |" for name, (rate, p99) in sidecars.items()),
    ]
    if len(memory) > 1:
        lines += ["\n## Memory of the five Envoy processes over hot reads\n", "| reads | MiB |", "|---|---|"]
        shown = [*memory[:: max(1, len(memory) // 10)], memory[-1]]
        lines += [f"| {reads:,} | {mebibytes:.1f} |" for reads, mebibytes in dict.fromkeys(shown)]
    return "\n".join(lines) + "\n"


_TOPOLOGIES = {"inside": "Python inside Envoy", "sidecars": "sidecar Envoys, uvicorn and grpc.aio"}


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


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
            arguments.output.write_text(asyncio.run(run(layout, arguments.seconds, arguments.reads)))
        finally:
            subprocess.run([str(BIN / "backend"), "down", *where], check=True)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
