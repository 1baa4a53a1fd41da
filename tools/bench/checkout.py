"""A checkout and the stack that it runs, used through what every one of them has: the `backend` command and the public API."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

_SCRIPT = Path(__file__).with_name("operations.lua")
# Of operations.lua, and how many connections ask for it at once.
OPERATIONS: Mapping[str, int] = {
    "order read": 32,
    "order list": 32,
    "product list": 32,
    "profile": 32,
    "order create": 16,
    "order create and pay": 8,
    "login": 4,
}
_PASSWORD = "bench password"
_ACCOUNTS = 8
# Enough of everything, so that nothing is sold out.
_STOCK = 1_000_000


@dataclass(frozen=True)
class Reading:
    """One measurement: requests a second, and microseconds of CPU a request over all processes of the stack."""

    rate: float
    cpu: float
    # The same by process.
    processes: Mapping[str, float]


class Checkout:
    """A checkout with an environment of its own (`make bootstrap`), and the stack it runs.

    Args:
        root: of the checkout.
        data_dir: of the stack.
        port_offset: of the stack.
        options: of `backend up` besides.
    """

    def __init__(self, root: Path, data_dir: Path, port_offset: int, options: Sequence[str] = ()) -> None:
        self._options = options
        self._backend = root / ".venv" / "bin" / "backend"
        self._data_dir = data_dir
        self._offset = port_offset
        self._emails = [f"compared-{uuid.uuid4()}@example.com" for _ in range(_ACCOUNTS)]

    def start(self) -> None:
        """Start the stack."""
        self._run(
            "up", "--detach", "--data-dir", str(self._data_dir), "--port-offset", str(self._offset),
            "--rate-limit-scale", "10000", *self._options,
        )  # fmt: skip
        status = json.loads(self._run("status", "--json", "--data-dir", str(self._data_dir)))
        self._url = status["endpoints"]["public"]
        self._demo = status["demo"]
        self._processes = {process["name"]: psutil.Process(process["pid"]) for process in status["processes"]}

    def prepare(self) -> None:
        """Make what the operations need: stock, an order, and accounts to log in to."""
        with httpx.Client(base_url=self._url, timeout=30) as http:
            as_admin, as_customer = self._token("admin"), self._token("customer")
            catalog = http.get("/v1/products", params={"limit": 20}).raise_for_status().json()["items"]
            self._products: Sequence[str] = [product["id"] for product in catalog]
            for product in self._products:
                self._post(
                    http, f"/v1/admin/products/{product}/stock", {"delta": _STOCK, "reason": "compared"}, as_admin
                )
            for email in self._emails:
                account = {"email": email, "password": _PASSWORD, "display_name": "Compared"}
                http.post("/v1/auth/register", json=account).raise_for_status()
            lines = [{"product_id": product, "quantity": 1} for product in self._products[:3]]
            self._order = self._post(http, "/v1/orders", {"items": lines}, as_customer).json()["id"]

    def stop(self) -> None:
        """Stop the stack."""
        self._run("down", "--data-dir", str(self._data_dir))

    def measure(self, operation: str, seconds: int) -> Reading:
        """Do one of OPERATIONS for some seconds.

        Raises:
            SystemExit: an answer was no success.
        """
        # An access token lives for minutes, a comparison longer.
        token = self._token("customer")
        before = self._cpu()
        output = subprocess.run(
            ["wrk", "-t1", f"-c{OPERATIONS[operation]}", f"-d{seconds}", "-s", _SCRIPT, self._url, "--",
             operation, uuid.uuid4().hex, token, self._order, ",".join(self._products), ",".join(self._emails),
             _PASSWORD],
            capture_output=True, encoding="utf-8", check=True,
        ).stdout  # fmt: skip
        after = self._cpu()
        used = {name: after[name] - before[name] for name in after}
        requests, rate = (re.search(p, output) for p in (r"(\d+) requests in", r"Requests/sec:\s+([\d.]+)"))
        if "Non-2xx" in output or requests is None or rate is None or not int(requests[1]):
            raise SystemExit(f"{operation}: not all answers were a success\n{output}")
        by_process = {name: seconds / int(requests[1]) * 1e6 for name, seconds in used.items()}
        return Reading(float(rate[1]), sum(by_process.values()), by_process)

    def memory(self) -> dict[str, float]:
        """Memory of each process with its children in MiB: theirs, and their part of what they share (PSS)."""
        return {
            name: sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)]) / 2**20
            for name, process in self._processes.items()
        }

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([self._backend, *arguments], capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            raise SystemExit(f"{self._backend} {arguments[0]} failed\n{done.stdout}{done.stderr}")
        return done.stdout

    def _post(self, http: httpx.Client, path: str, body: object, token: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}", "idempotency-key": str(uuid.uuid4())}
        return http.post(path, json=body, headers=headers).raise_for_status()

    def _token(self, who: str) -> str:
        pair = httpx.post(f"{self._url}/v1/auth/login", json=self._demo[who], timeout=30).raise_for_status().json()
        token: str = pair["access_token"]
        return token

    def _cpu(self) -> dict[str, float]:
        """Seconds of CPU, by process."""
        return {
            name: sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])
            for name, process in self._processes.items()
        }
