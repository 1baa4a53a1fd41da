"""A real Prometheus that watches a running stack by our own rules, in fast motion."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from mesh.observability.alerts import ALERTS, LONGEST_SECONDS, firing
from mesh.observability.conditions import Series, duration
from mesh.observability.rules import rules
from mesh.observability.scraping import prometheus
from mesh.topology import TABLE
from programs import PROMETHEUS

from conftest import Platform

# Five minutes are five seconds, six hours are six minutes.
FACTOR = 60
_SCRAPE_SECONDS = 1.0
# For what comes within seconds on a machine that has nothing else to do.
_PATIENCE_SECONDS = 120


def ops_of(stack: Platform) -> dict[str, str]:
    """Where each process of a stack tells its metrics."""
    return {row.name: stack.status["endpoints"][f"{row.name}_ops"].removeprefix("http://") for row in TABLE}


def faults(alerts: set[str]) -> set[str]:
    """Those that do not depend on how fast the machine is."""
    return {one for one in alerts if not one.startswith("Latency")}


class Watch:
    """A Prometheus that runs for the duration of the block.

    Args:
        directory: its own, which it makes.
        processes: whom it asks, by name, and where.
        factor: how much shorter than they are all windows are.
    """

    def __init__(self, directory: Path, processes: Mapping[str, str], factor: float = FACTOR) -> None:
        self._factor = factor
        self._directory = directory
        self._processes = processes
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        # The alerts that have fired since `begin`, and whom each is about.
        self.fired: set[str] = set()

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True)
        config = prometheus(self._processes, seconds=_SCRAPE_SECONDS)
        (self._directory / "prometheus.yml").write_text(config, encoding="utf-8")
        (self._directory / "rules.yml").write_text(rules(self._factor), encoding="utf-8")
        assert PROMETHEUS is not None
        command = [
            PROMETHEUS,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={self._address}",
            "--log.level=warn",
        ]
        with (self._directory / "log").open("wb") as output:
            self._process = subprocess.Popen(command, cwd=self._directory, stdout=output, stderr=output)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    async def ready(self) -> None:
        """Everybody has been asked, and the rules have been evaluated since."""
        async with asyncio.timeout(45):
            while True:
                assert self._process.poll() is None, f"see {self._directory}"
                with suppress(httpx.TransportError, json.JSONDecodeError):
                    if len(await self.query("up")) == len(self._processes):
                        break
                await asyncio.sleep(0.25)
        await asyncio.sleep(1)

    async def begin(self) -> None:
        """What fired before fires no more. From now on it is noticed."""
        await self.ready()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while faults(await self.now()):
                await asyncio.sleep(0.25)
        self.fired.clear()

    async def until(self, *expected: str) -> None:
        """Until these have fired, and what is evaluated without Prometheus says the same; no other fault may."""
        wanted, by_ourselves = set(expected), set[str]()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not wanted <= self.fired:
                    await self.look_on(0.25)
                while not wanted <= by_ourselves:
                    by_ourselves |= await self.by_ourselves()
                    await self.look_on(0.25)
        except TimeoutError:
            raise AssertionError(f"{wanted} are expected, {self.fired} fired, {by_ourselves} by ourselves") from None
        await self.look_on(1)
        assert faults(self.fired) | wanted == wanted, self.fired
        assert faults(by_ourselves) | wanted == wanted, by_ourselves

    async def look_on(self, seconds: float) -> None:
        """For a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.fired |= await self.now()
            await asyncio.sleep(0.25)

    async def by_ourselves(self) -> set[str]:
        """The alerts that fire by the samples that Prometheus has, evaluated without it."""
        metrics = {found for alert in ALERTS for found in re.findall(r"\b(?:backend|envoy)_\w+", alert.promql())}
        metrics |= {"up", "envoy_vhost_route_.*"}
        everything = (
            f'{{job="backend",__name__=~"{"|".join(sorted(metrics))}"}}[{duration(LONGEST_SECONDS / self._factor)}]'
        )
        history = History([(found["metric"], found["values"]) for found in await self.query(everything)])
        return {_said(one.alert.name, one.labels) for one in firing(history, time.time(), factor=self._factor)}

    async def now(self) -> set[str]:
        """The alerts that fire now."""
        alerts = (await self._ask("/api/v1/alerts"))["alerts"]
        return {_said(one["labels"]["alertname"], one["labels"]) for one in alerts if one["state"] == "firing"}

    async def query(self, promql: str) -> list[Any]:
        """What an expression gives now."""
        return list((await self._ask("/api/v1/query", query=promql))["result"])

    async def _ask(self, path: str, **parameters: str) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=f"http://{self._address}") as client:
            answer = (await client.get(path, params=parameters)).json()
        assert answer["status"] == "success", answer
        return dict(answer["data"])


def _said(name: str, labels: Mapping[str, str]) -> str:
    """The alert and whom it is about: a process, a service or a class."""
    about = labels.get("instance") or labels.get("service") or labels.get("class")
    return f"{name} {about}"


@dataclass(frozen=True)
class History:
    """Of Prometheus's own samples."""

    all: list[tuple[Mapping[str, str], list[tuple[float, str]]]]

    def series(self, metric: str, seconds: float) -> Iterator[Series]:
        newest = max((values[-1][0] for _, values in self.all), default=0)
        for labels, values in self.all:
            if labels["__name__"] == metric:
                points = [(at, float(value)) for at, value in values if seconds == 0 or at > newest - seconds]
                if points:
                    yield Series(labels, points if seconds else points[-1:])
