"""Races of every pair of an order's transitions, over the real use cases and a real PostgreSQL and Valkey.

    .venv/bin/python tools/order_races.py --data-dir D [--rounds 1000] [--seed 1] [--only pay+cancel]
        [--seconds 1500] [--at-once 3]

    (2026-11-26, seed 8, two busy cores: 477 rounds of each of the 28 pairs, 13,356 in all, in 24 minutes; everything
    agreed; seed 2026, 309 of each, 8,652 in all, with --at-once 1: everything agreed. With the mend of a charge that arrives late taken out, 400 rounds of pay+pay find that one.)

D is the data directory of a running stack (`backend up --detach --data-dir D`); the races get a database of their own
in it. In every round an order is brought to a status, then two of {pay, cancel, expire, ship, deliver, refund, restock}
run at the same moment on two replicas while somebody reads and a third replica's sweep runs. The provider is slow, fails,
loses answers, acts only after it was given up, refuses, and takes the process down with it after it has acted; the same
request twice is as often a repetition under one key. Then the sweep runs until nothing is left to do, and the provider's
record, the order, its history, the stock and the cache have to agree. Some rounds of every pair run at once. The same
seed makes the same choices; what the machine makes of their timing is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement, pairwise
from math import inf
from pathlib import Path
from time import monotonic
from typing import TypeVar
from uuid import UUID

import asyncpg
import structlog
from chassis.cache import VersionedCache
from chassis.database import Database
from chassis.ids import uuid7
from chassis.valkey import PipelinedClient
from contracts.order.v1 import order_pb2
from devstack.layout import Layout
from devstack.secrets import Secrets, load_or_create
from order.domain.errors import DomainError, PaymentProviderError, PaymentTimeoutError
from order.domain.money import Money
from order.domain.order import OrderStatus
from order.domain.unpaid import UnpaidLimits
from order.gateways.bounded import BoundedGateway
from order.gateways.payment import ChargeOutcome, PaymentGateway, RefundOutcome
from order.gateways.payment_sandbox import PaymentSandbox
from order.service import records as shown
from order.service.catalog import CatalogUseCases
from order.service.orders import Actor, OrderUseCases, Reader
from order.service.payments import PaymentUseCases
from order.service.refunds import RefundUseCases
from order.service.replay import IdempotentRequest, ReplayCache
from order.service.transitions import Caches, Transitions

from devstack import postgres, services

T = TypeVar("T")

# Where an operation has something to do; restocking has nothing to do with the order's status.
STARTS: dict[str, tuple[OrderStatus, ...]] = {
    "pay": (OrderStatus.PENDING_PAYMENT,),
    "cancel": (OrderStatus.PENDING_PAYMENT,),
    "expire": (OrderStatus.PENDING_PAYMENT,),
    "ship": (OrderStatus.PAID,),
    "deliver": (OrderStatus.SHIPPED,),
    "refund": (OrderStatus.PAID, OrderStatus.SHIPPED, OrderStatus.DELIVERED),
    "restock": (OrderStatus.PENDING_PAYMENT, OrderStatus.PAID),
}
PAIRS = tuple(combinations_with_replacement(STARTS, 2))
_TOKENS = ("tok_approved",) * 6 + ("tok_refund_error", "tok_refund_timeout", "tok_refund_refused", "tok_declined")
# Statuses in which the money is with the shop, and those in which the pieces are out of stock.
_PAID = {OrderStatus.PAID, OrderStatus.SHIPPED, OrderStatus.DELIVERED, OrderStatus.REFUNDING}
_HOLDS = {OrderStatus.PENDING_PAYMENT, *_PAID}
# Who looks how it went.
_ANYBODY = Reader("", sees_any=True)
_STOCK = 10
# Seconds that the provider may take in a race.
_PATIENCE = 0.1
# Rounds of every pair that run at the same time, unless the machine is too busy for it.
_AT_ONCE = 3


class ProcessDiedError(BaseException):
    """What a process does not live to catch."""


# The choices of the round whose call this is; outside of a race the line is good.
_rough: ContextVar[random.Random | None] = ContextVar("rough", default=None)


class Provider:
    """The sandbox behind a bad line: slow both ways, and now and then the answer or the caller is lost."""

    def __init__(self, sandbox: PaymentSandbox) -> None:
        self._sandbox = sandbox

    async def charge(self, reference: UUID, amount: Money, payment_token: str) -> ChargeOutcome:
        """See `PaymentGateway.charge`."""
        return await _over_the_line(lambda: self._sandbox.charge(reference, amount, payment_token))

    async def resolve(self, reference: UUID) -> ChargeOutcome:
        """See `PaymentGateway.resolve`."""
        return await self._sandbox.resolve(reference)

    async def refund(self, reference: UUID) -> RefundOutcome:
        """See `PaymentGateway.refund`."""
        return await _over_the_line(lambda: self._sandbox.refund(reference))


async def _over_the_line(call: Callable[[], Awaitable[T]]) -> T:
    chance = _rough.get()
    if chance is None:
        return await call()
    fate = chance.random()
    await asyncio.sleep(chance.random() * 0.004)
    if fate < 0.1:
        raise PaymentProviderError("the line was cut before the provider acted")
    if fate < 0.2:
        late = asyncio.create_task(_later(call, chance.random() * 0.05))
        _late.add(late)
        late.add_done_callback(_late.discard)
        raise PaymentTimeoutError
    try:
        answer = await asyncio.wait_for(call(), _PATIENCE)
    except TimeoutError as error:
        raise PaymentTimeoutError from error
    await asyncio.sleep(chance.random() * 0.004)
    if fate < 0.25:
        raise PaymentTimeoutError
    if fate < 0.35:
        raise ProcessDiedError
    return answer


# Calls that were given up and have not arrived yet.
_late: set[asyncio.Task[None]] = set()


async def _later(call: Callable[[], Awaitable[object]], seconds: float) -> None:
    await asyncio.sleep(seconds)
    # A call that the sandbox never answers has acted before it does not.
    with suppress(TimeoutError, DomainError):
        await asyncio.wait_for(call(), _PATIENCE)


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of the service, as far as races go."""

    orders: OrderUseCases
    payments: PaymentUseCases
    refunds: RefundUseCases
    catalog: CatalogUseCases
    caches: Caches


@dataclass(frozen=True, slots=True)
class Arena:
    """Two replicas over one database."""

    database: Database
    replicas: tuple[Replica, Replica]


@dataclass
class Report:
    """What was run, and what did not agree."""

    rounds: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


@asynccontextmanager
async def arena(layout: Layout, secrets: Secrets) -> AsyncIterator[Arena]:
    """A database of its own in a running stack, and replicas over it."""
    known = postgres.database_of("order", secrets)
    own = replace(known, database=f"races_{uuid.uuid4().hex}")
    superuser = await asyncpg.connect(postgres.superuser_url(layout, secrets, "postgres"))
    await postgres.prepare_one(layout, secrets, own)
    await postgres.migrate_one(layout, secrets, own, print)
    database = Database(own.url(layout), min_size=2, max_size=24, service="races")
    clients = [PipelinedClient(services.valkey_url(layout, secrets)) for _ in range(2)]
    try:
        await database.open()
        provider = BoundedGateway(Provider(PaymentSandbox(database)), 1)
        first, second = (replica(database, client, provider) for client in clients)
        yield Arena(database, (first, second))
    finally:
        await database.close()
        for client in clients:
            await client.close()
        await superuser.execute(f"DROP DATABASE {own.database}")
        await superuser.close()


def replica(database: Database, client: PipelinedClient, gateway: PaymentGateway) -> Replica:
    """The use cases as `order.main` wires them."""

    def now() -> datetime:
        return datetime.now(UTC)

    caches = Caches(VersionedCache(client, "order:race:order:", 60), VersionedCache(client, "order:race:product:", 60))
    transitions = Transitions(caches, now)
    replays = ReplayCache(client, 60)
    return Replica(
        orders=OrderUseCases(
            database=database, transitions=transitions, replays=replays, now=now, new_id=uuid7,
            payment_window=timedelta(minutes=15), unpaid=UnpaidLimits(orders=0, pieces=0, window=timedelta(0)),
        ),
        payments=PaymentUseCases(
            database=database, transitions=transitions, replays=replays, gateway=gateway, now=now,
            # Who repeats a payment asks the provider at once, beside the first.
            answer_time=timedelta(0), most_declined=0,
        ),
        refunds=RefundUseCases(database=database, transitions=transitions, gateway=gateway, now=now),
        catalog=CatalogUseCases(database=database, cache=caches.products, now=now, new_id=uuid7),
        caches=caches,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Records:
    """What the database has of one order once everything is over."""

    order: asyncpg.Record
    history: list[asyncpg.Record]
    # Each attempt to pay with the provider's record of it.
    charges: list[asyncpg.Record]
    refund: asyncpg.Record | None
    available: int
    held: int


class _Round:
    """One order, two operations at once, and everything that has to agree afterwards."""

    def __init__(self, arena: Arena, pair: tuple[str, str], seed: str) -> None:
        self._arena = arena
        self._pair = pair
        self._seed = seed
        self._chance = random.Random(seed)
        self._customer = uuid7()
        self._support = Actor(uuid7(), cancels_any=True)
        self._token = self._chance.choice(_TOKENS)
        # The same twice is as often one request that is repeated as it is two.
        self._keys = [uuid.uuid4().hex, uuid.uuid4().hex]
        if pair[0] == pair[1] and self._chance.random() < 0.5:
            self._keys[1] = self._keys[0]
        # By key: the same key is the same request, and acts once.
        self._deltas = {key: self._chance.choice([-2, -1, 1, 5]) for key in self._keys}
        self._restocked: dict[str, int] = {}
        self.product_id = self.order_id = UUID(int=0)
        self.end = ""
        self.violations: list[str] = []

    async def prepare(self) -> None:
        """Bring the order to where the race starts."""
        start = self._chance.choice([status for name in self._pair for status in STARTS[name]])
        calm = self._arena.replicas[0]
        price = Money(self._chance.randrange(1, 10_000), "EUR")
        product = await calm.catalog.create(
            f"R-{uuid.uuid4().hex[:30].upper()}", "raced", price, _STOCK, self._support.user_id
        )
        self.product_id = product.id
        order, _ = await calm.orders.create(self._idempotent_request(), [(product.id, self._chance.randrange(1, 4))])
        self.order_id = order.id
        if start is not OrderStatus.PENDING_PAYMENT:
            # The charge must have been approved to get here.
            token = self._token if self._token != "tok_declined" else "tok_approved"
            request = self._idempotent_request()
            while (await calm.orders.get(order.id, _ANYBODY)).status is not OrderStatus.PAID:
                # A busy machine may be slower than the provider is waited for.
                with suppress(PaymentTimeoutError):
                    await calm.payments.pay(request, order.id, token, None)
        if start in (OrderStatus.SHIPPED, OrderStatus.DELIVERED):
            await calm.orders.ship(order.id, self._support, "DHL", "JD", None)
        if start is OrderStatus.DELIVERED:
            await calm.orders.deliver(order.id, self._support, None)
        if "expire" in self._pair:
            async with self._arena.database.connection() as connection:
                await connection.execute("UPDATE orders SET expires_at = now() WHERE id = $1", order.id)

    async def race(self) -> None:
        """Both operations at the same moment, while somebody reads."""
        reading = asyncio.create_task(self._read())
        # Who repeats does so a little later, or the first is still looking at the order.
        apart = 0.006 if self._keys[0] != self._keys[1] else 0.03
        delays = [self._chance.random() * apart, self._chance.random() * apart]
        try:
            await asyncio.gather(
                *(
                    self._operate(name, replica, delay, key)
                    for name, replica, delay, key in zip(
                        self._pair, self._arena.replicas, delays, self._keys, strict=True
                    )
                )
            )
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _operate(self, name: str, replica: Replica, delay: float, key: str) -> None:
        _rough.set(self._chance)
        await asyncio.sleep(delay)
        try:
            match name:
                case "pay":
                    await replica.payments.pay(self._idempotent_request(key), self.order_id, self._token, None)
                case "cancel":
                    await replica.orders.cancel(self.order_id, self._support, "no", None)
                case "expire":
                    await replica.orders.expire()
                case "ship":
                    await replica.orders.ship(self.order_id, self._support, "DHL", "JD", None)
                case "deliver":
                    await replica.orders.deliver(self.order_id, self._support, None)
                case "refund":
                    restock = self._chance.choice([None, True, False])
                    await replica.refunds.refund(self._idempotent_request(key), self.order_id, "no", restock, None)
                case "restock":
                    await replica.catalog.adjust_stock(
                        self._idempotent_request(key), self.product_id, self._deltas[key], "no"
                    )
                    self._restocked[key] = self._deltas[key]
        except (DomainError, ProcessDiedError):
            pass
        except Exception as error:
            self.violations.append(f"{name} failed: {error!r}")

    async def _read(self) -> None:
        """Read what the database has, and offer it to the cache."""
        while True:
            for replica in self._arena.replicas:
                answer = shown.order(await replica.orders.get(self.order_id, _ANYBODY))
                await replica.caches.orders.offer(answer.id, answer.version, answer.SerializeToString())
                await asyncio.sleep(0.003)

    async def check(self, records: _Records) -> None:
        """Whether everything agrees; what does not is in `violations`."""
        order, charges, refund = records.order, records.charges, records.refund
        status = OrderStatus(order["status"])
        self.end = status.value
        expect = self._expect
        # Money: what the provider has taken and not given back is what the order says.
        taken = [charge for charge in charges if charge["approved"]]
        kept = sum(charge["amount_minor"] for charge in taken if not charge["refunded"])
        expect(len(taken) <= 1, f"charged {len(taken)} times")
        expect(kept == (order["total_minor"] if status in _PAID else 0), f"{status}, but the provider keeps {kept}")
        expect(all(charge["recorded"] != "processing" for charge in charges), "a payment has no outcome")
        expect(
            all(bool(charge["approved"]) == (charge["recorded"] == "approved") for charge in charges),
            "a payment's record is not the provider's",
        )
        # Refunds: one that is not finished is one that the provider refuses.
        if status is OrderStatus.REFUNDING:
            expect(refund is not None and refund["status"] == "refused", "a refund was left half done")
        expect((refund is not None) == (status in (OrderStatus.REFUNDING, OrderStatus.REFUNDED)), "a refund too many")
        if refund is not None:
            expect((refund["status"] == "succeeded") == (status is OrderStatus.REFUNDED), "the refund's record differs")
        # What is due has happened.
        expect(status is not OrderStatus.PENDING_PAYMENT or "expire" not in self._pair, "it should have expired")
        # History: a chain without a gap that ends where the order is.
        steps = [(step["from_status"], step["to_status"]) for step in records.history]
        versions = [step["version"] for step in records.history]
        expect(versions == list(range(1, order["version"] + 1)), "versions have a gap")
        expect(all(one[1] == other[0] for one, other in pairwise(steps)), f"no chain: {steps}")
        expect(steps[-1][1] == status, f"{status}, but its history ends with {steps[-1][1]}")
        # Stock: what was there, was changed by hand, and is held.
        back = status is OrderStatus.REFUNDED and refund is not None and refund["restock"]
        out = records.held if status in _HOLDS or (status is OrderStatus.REFUNDED and not back) else 0
        by_hand = sum(self._restocked.values())
        expect(
            records.available == _STOCK + by_hand - out,
            f"{status}: {records.available} of {_STOCK}{by_hand:+}, {out} are out",
        )
        # Cache: never older than what is committed.
        for replica in self._arena.replicas:
            cached = await replica.caches.orders.get(str(self.order_id))
            if cached is not None:
                shown = order_pb2.Order.FromString(cached)
                expect(shown.version == order["version"], f"the cache has version {shown.version}")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.violations.append(f"{'+'.join(self._pair)} seed={self._seed}: {otherwise}")

    def _idempotent_request(self, key: str = "") -> IdempotentRequest:
        key = key or uuid.uuid4().hex
        return IdempotentRequest(self._customer, key, hashlib.sha256(key.encode()).digest())


async def sweep_everything(arena: Arena, *, closely: bool = False) -> None:
    """What the sweep does over the next hours, now; `closely`: only what one round of it does."""
    sweeping = arena.replicas[1]
    for _ in range(1 if closely else 4):
        async with arena.database.connection() as connection:
            await connection.execute("UPDATE refunds SET next_attempt_at = now() WHERE status <> 'succeeded'")
            await connection.execute("UPDATE payments SET next_check_at = NULL WHERE status = 'processing'")
        await sweeping.payments.settle_stuck(timedelta(seconds=-60))
        await sweeping.refunds.finish_due()
    await sweeping.orders.expire()


async def _sweeping(arena: Arena) -> None:
    """A third replica's sweep, in the middle of the races."""
    while True:
        await asyncio.sleep(0.03)
        await sweep_everything(arena, closely=True)


async def _together(arena: Arena, rounds: list[_Round], report: Report, *, sweep: bool) -> None:
    """Several rounds at once, `sweep`: in the middle of a third replica's."""
    await asyncio.gather(*(one.prepare() for one in rounds))
    # Not always: what it closes is closed for good.
    sweeping = asyncio.create_task(_sweeping(arena) if sweep else asyncio.sleep(0))
    try:
        await asyncio.gather(*(one.race() for one in rounds))
    finally:
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
    await sweep_everything(arena)
    # What was given up and arrives only now finds everything closed.
    await asyncio.gather(*_late, return_exceptions=True)
    await sweep_everything(arena)
    records = await _records(arena, rounds)
    await asyncio.gather(*(one.check(records[one.order_id]) for one in rounds))
    for one in rounds:
        report.rounds += 1
        report.ends[one.end] += 1
        report.violations += one.violations


async def _records(arena: Arena, rounds: list[_Round]) -> dict[UUID, _Records]:
    ids = [one.order_id for one in rounds]
    async with arena.database.connection() as connection:
        orders = await connection.fetch("SELECT * FROM orders WHERE id = ANY($1)", ids)
        history = await connection.fetch(
            "SELECT * FROM order_transitions WHERE order_id = ANY($1) ORDER BY order_id, version", ids
        )
        charges = await connection.fetch(
            "SELECT p.order_id, c.*, p.status AS recorded FROM payments AS p "
            "LEFT JOIN payment_sandbox_charges AS c ON c.reference = p.id WHERE p.order_id = ANY($1)",
            ids,
        )
        refunds = await connection.fetch("SELECT * FROM refunds WHERE order_id = ANY($1)", ids)
        stock = await connection.fetch(
            "SELECT i.order_id, p.available, i.quantity "
            "FROM order_items AS i JOIN products AS p ON p.id = i.product_id WHERE i.order_id = ANY($1)",
            ids,
        )
    by_id = {row["id"]: row for row in orders}
    held = {row["order_id"]: row for row in stock}
    refunded = {row["order_id"]: row for row in refunds}
    return {
        order_id: _Records(
            order=by_id[order_id],
            history=[row for row in history if row["order_id"] == order_id],
            charges=[row for row in charges if row["order_id"] == order_id],
            refund=refunded.get(order_id),
            available=held[order_id]["available"],
            held=held[order_id]["quantity"],
        )
        for order_id in ids
    }


async def run(
    where: Arena,
    rounds: int,
    seed: int,
    pairs: tuple[tuple[str, str], ...] = PAIRS,
    seconds: float = inf,
    at_once: int = _AT_ONCE,
) -> Report:
    """So many rounds of every pair, many at once; of every pair equally many when the `seconds` are over before."""
    report = Report()
    until = monotonic() + seconds
    for first in range(0, rounds, at_once):
        if monotonic() > until:
            break
        numbers = range(first, min(first + at_once, rounds))
        names = [(pair, f"{seed}:{'+'.join(pair)}:{number}") for number in numbers for pair in pairs]
        await _together(where, [_Round(where, pair, name) for pair, name in names], report, sweep=first % 2 == 0)
    return report


async def _main(arguments: argparse.Namespace) -> int:
    layout = Layout(arguments.data_dir, 0)
    only = tuple(pair for pair in PAIRS if arguments.only in ("", "+".join(pair)))
    async with arena(layout, load_or_create(layout.secrets)) as where:
        report = await run(where, arguments.rounds, arguments.seed, only, arguments.seconds, arguments.at_once)
    print(
        f"{report.rounds} rounds of {len(only)} pairs, seed {arguments.seed}; they ended {dict(report.ends.most_common())}"
    )
    for violation in report.violations:
        print("VIOLATION", violation)
    return 1 if report.violations else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=inf, help="stop after so long, all pairs equally often run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=_AT_ONCE, help="rounds of every pair at the same time")
    parser.add_argument("--only", default="", help="one pair, as in pay+cancel")
    # A refused refund or a dead process is what the races are made of.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    return asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
