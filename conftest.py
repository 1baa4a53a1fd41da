"""One running platform for the whole test run, shared by all workers; started by the first test that asks for it."""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import answers
import asyncpg
import httpx
import pytest
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from devstack.layout import Layout
from devstack.options import REPLICATED, Options
from devstack.secrets import Secrets, load_or_create
from devstack.secrets import file as secret_file
from filelock import FileLock
from mesh.topology import EDGE, PORTS_EACH
from redis.asyncio import Redis
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from devstack import ports, postgres, services

pytest_plugins = ["alone", "completeness", "instances", "leftovers", "measuring", "programs", "telling", "browsers"]

BACKEND = Path(sys.executable).parent / "backend"


# Tests that share a stack of their own, one worker each; all others go wherever there is room.
TOGETHER = (
    "tests/network/",
    "tests/chaos/",
    "tests/interop/",
    "tests/operate/",
    "tests/acceptance/test_under_pressure.py",
    "devstack/tests/test_backend_command.py",
)


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Instead of xdist's own `--dist loadgroup`, whose marks pytest 9.2 no longer passes on (xdist 3.8.0)."""
    return _Scheduling(config, log)


# The one of all these that browsers refuse to call (fetch.spec.whatwg.org/#port-blocking).
_NO_BROWSERS = 10080


def free_port_offset() -> int:
    """An offset at which every port of the largest stack is free right now, and which no other worker is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    largest = Options(replicas=REPLICATED)
    # Below the range from which the kernel takes ports for outgoing connections (32768 and up on Linux).
    offsets = list(range(PORTS_EACH * (worker + 1), 24000, PORTS_EACH * workers))
    random.shuffle(offsets)
    for offset in offsets:
        found = list(ports.of_stack(Layout(Path(), offset), largest))
        if all(port.number != _NO_BROWSERS and port.is_free() for port in found):
            return offset
    raise RuntimeError("no free ports")


def backend(
    *arguments: str, check: bool = True, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the `backend` command; nothing that it prints may be a secret, and what it starts ends with this run."""
    if arguments[0] == "up" and "--die-with" not in arguments:
        arguments = (*arguments, "--die-with", str(this_run()))
    done = subprocess.run(
        [str(BACKEND), *arguments],
        capture_output=True,
        encoding="utf-8",
        check=check,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    if "--data-dir" in arguments:
        check_for_secrets(Path(arguments[arguments.index("--data-dir") + 1]), done.stdout + done.stderr)
    return done


def check_for_secrets(data_dir: Path, printed: str) -> None:
    """Only the demo accounts' passwords are for a screen."""
    file = secret_file(data_dir / "secrets")
    if file.exists():
        shown = load_or_create(file.parent).hidden_in(printed)
        assert shown == printed, "a secret was printed"
        keys = (data_dir / "secrets").rglob("*.pem")
        assert not any(line in printed for key in keys for line in key.read_text(encoding="utf-8").splitlines()[1:-1])


@dataclass(frozen=True)
class Platform:
    """A running stack, and the ways into it."""

    layout: Layout
    status: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.status["endpoints"]["public"])

    @property
    def secrets(self) -> Secrets:
        return load_or_create(self.layout.secrets)

    @property
    def traced(self) -> dict[str, str]:
        """A header that has its request traced, which nobody knows but who operates the stack."""
        return {f"x-trace-{self.secrets.trace_key}": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}

    def account(self, role: str) -> models.LoginRequest:
        account = self.status["demo"][role]
        return models.LoginRequest(email=account["email"], password=account["password"])

    async def database(self, name: str) -> asyncpg.Connection:
        return await asyncpg.connect(postgres.superuser_url(self.layout, self.secrets, name))

    def valkey(self, user: str = "admin", server: str = "") -> Redis:
        return Redis.from_url(services.valkey_url(self.layout, self.secrets, user, server), driver_info=None)

    def pid(self, name: str) -> int:
        # Its exit status says when something is not ready.
        said = backend("status", "--json", "--data-dir", str(self.layout.data_dir), check=False)
        status = json.loads(said.stdout)
        return int(next(p["pid"] for p in status["processes"] if p["name"] == name))


# An access token, signature included.
_TOKEN = re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{40,}")
# Most tests hammer; those of the limits themselves start a stack without this.
GENEROUS = ("--rate-limit-scale", "100")


def this_run() -> int:
    """The process of the whole run, however many workers it has: what it starts is for all of them."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def start_platform(data_dir: Path, *options: str) -> Platform:
    """Start a stack of its own on free ports."""
    offset = free_port_offset()
    where = ("--data-dir", str(data_dir), "--port-offset", str(offset))
    done = backend("up", "--detach", *where, *options, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return running_platform(data_dir)


def running_platform(data_dir: Path) -> Platform:
    """The stack that runs in `data_dir`."""
    status = json.loads(backend("status", "--json", "--data-dir", str(data_dir)).stdout)
    offset = int(status["endpoints"]["public"].rsplit(":", 1)[1]) - EDGE.port
    return Platform(Layout(data_dir, offset), status)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The shared platform; the last worker that used it stops it. One that is described runs, and goes on running."""
    if file := os.environ.get("PLATFORM"):
        import elsewhere

        yield elsewhere.described(Path(file))
        return
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    data_dir, users = shared / "platform", shared / "platform-users"
    with FileLock(shared / "platform.lock"):
        if not users.exists() or users.read_text(encoding="utf-8") == "0":
            found = start_platform(data_dir, *GENEROUS)
        else:
            found = running_platform(data_dir)
        users.write_text(str(int(users.read_text(encoding="utf-8")) + 1 if users.exists() else 1), encoding="utf-8")
    yield found
    with FileLock(shared / "platform.lock"):
        users.write_text(str(int(users.read_text(encoding="utf-8")) - 1), encoding="utf-8")
        if users.read_text(encoding="utf-8") == "0":
            backend("down", "--data-dir", str(data_dir))
            # Whatever the tests of the whole run have made it write.
            for log in found.layout.logs.glob("*.log*"):
                written = log.read_text(errors="replace", encoding="utf-8")
                check_for_secrets(data_dir, written)
                assert "Bearer ey" not in written, log
                assert not _TOKEN.search(written), log
            shutil.rmtree(data_dir)


def client_address() -> str:
    """An address that no other test calls from: limits count by address, and all of 127/8 is this machine."""
    if sys.platform != "linux":
        return "127.0.0.1"
    return f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"


def http_client(base_url: str, **options: Any) -> httpx.AsyncClient:
    """A connection pool of a client of its own; every answer it gets must be one of the contract."""
    limits = httpx.Limits(max_connections=64)
    transport = httpx.AsyncHTTPTransport(limits=limits, local_address=client_address(), **options)
    hooks = {"response": [answers.check_of(base_url)]}
    return httpx.AsyncClient(base_url=base_url, timeout=30, transport=transport, event_hooks=hooks)


@pytest.fixture
async def http(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """A connection pool to the public API."""
    async with http_client(platform.url) as client:
        yield client


@dataclass(frozen=True)
class People:
    """Clients of different people."""

    http: httpx.AsyncClient
    platform: Platform

    async def log_in(self, login: models.LoginRequest) -> BackendClient:
        client = BackendClient(self.http)
        client.access_token = (await client.login(login)).data.access_token
        return client

    async def role(self, role: str) -> BackendClient:
        """The demo account of a role."""
        return await self.log_in(self.platform.account(role))

    async def newcomer(self) -> tuple[BackendClient, models.LoginRequest]:
        """A customer nobody else knows, logged in."""
        login = models.LoginRequest(email=f"{uuid.uuid4()}@example.com", password=f"pw-{uuid.uuid4()}")
        await BackendClient(self.http).register(
            models.RegisterRequest(email=login.email, password=login.password, display_name="New Comer")
        )
        return await self.log_in(login), login

    async def product(self, stock: int = 100, price: int = 1000, currency: str = "EUR") -> models.Product:
        """A product nobody else orders."""
        admin = await self.role("admin")
        return (
            await admin.create_product(
                models.CreateProductRequest(
                    sku=f"T-{uuid.uuid4().hex[:20].upper()}",
                    name=f"Test product {uuid.uuid4()}",
                    price=models.Price(amount_minor=price, currency=currency),
                    initial_stock=stock,
                )
            )
        ).data

    async def order(self, client: BackendClient, *lines: tuple[models.Product, int]) -> models.Order:
        """A placed order."""
        return (await client.create_order(order_of(*lines), idempotency_key=new_key())).data


def order_of(*lines: tuple[models.Product, int]) -> models.CreateOrderRequest:
    """The body that orders these."""
    return models.CreateOrderRequest(
        items=[models.OrderLine(product_id=product.id, quantity=quantity) for product, quantity in lines]
    )


def new_key() -> str:
    """An idempotency key nobody has used."""
    return str(uuid.uuid4())


@pytest.fixture
def people(http: httpx.AsyncClient, platform: Platform) -> People:
    """Clients of different people on one connection pool."""
    return People(http, platform)
