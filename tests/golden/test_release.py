"""What the release before this table of services has left behind, as a whole, is read by this one: rows, sessions, answers
to idempotency keys, copies, and what clients hold.

`release/b12ed36.json` was taken from a running stack of that commit: one customer's rows as JSON, what its Valkeys had under
each key, and what the customer was given and shown. Its rows are put into databases of that release's schema, which today's
migrations then change.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import order.main
import order.settings
import pytest
from bff.sessions import SessionReader, is_valid
from chassis import context
from chassis.context import RequestContext
from chassis.cursors import CursorSigner
from chassis.database import Database
from chassis.errors import ServiceError, as_service_error
from chassis.identity import Caller
from chassis.ids import uuid7
from chassis.valkey import PipelinedClient
from contracts.common.v1 import paging_pb2
from contracts.order.v1 import catalog_pb2, order_pb2
from contracts.user.v1.session_pb2 import Client
from contracts.user.v1.user_pb2 import User as UserMessage
from devstack.secrets import load_or_create
from user.repository import users
from user.repository.sessions import SessionStore
from user.repository.signing_keys import SigningKeys
from user.service import credentials
from user.service.access_tokens import AccessTokens
from user.service.devices import Devices
from user.service.passwords import Passwords
from user.service.refresh_tokens import RefreshTokens
from user.service.sessions import Sessions

from conftest import Platform
from devstack import keys, postgres, services

LEFT: dict[str, Any] = json.loads((Path(__file__).parent / "release/b12ed36.json").read_text(encoding="utf-8"))
HELD, SAW, SECRETS = LEFT["held"], LEFT["saw"], LEFT["secrets"]
ME = UUID(HELD["user_id"])
BROWSER = Client(user_agent=HELD["user_agent"], address="127.0.0.1")


def a_minute_later() -> datetime:
    return datetime.fromisoformat(LEFT["moment"]) + timedelta(minutes=1)


@asynccontextmanager
async def database_of(platform: Platform, service: str) -> AsyncIterator[tuple[str, Database]]:
    """A database that the release before has written, and this one's migrations have changed; its URL, and a pool."""
    known = next(database for database in postgres.databases(platform.secrets) if database.service == service)
    own = replace(known, database=f"{service}_{uuid.uuid4().hex}")
    url = postgres.superuser_url(platform.layout, platform.secrets, own.database)
    left = LEFT["rows"][service]
    await postgres.prepare_one(platform.layout, platform.secrets, own)
    superuser, inside = await platform.database("postgres"), await platform.database(own.database)
    try:
        for path in sorted(own.migrations.glob("*.sql")):
            if (version := path.name.partition("_")[0]) in left["migrations"]:
                await inside.execute(path.read_text(encoding="utf-8").partition("-- migrate:down")[0])
                await inside.execute("INSERT INTO schema_migrations (version) VALUES ($1)", version)
        # The order in which rows refer to each other is not the file's business.
        await inside.execute("SET session_replication_role = replica")
        for table, rows in left["tables"].items():
            await inside.execute(
                f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::json)",  # noqa: S608
                json.dumps(rows),
            )
        await postgres.migrate_one(platform.layout, platform.secrets, own, print)
        database = Database(url, min_size=1, max_size=2, service="golden")
        await database.open()
        try:
            yield url, database
        finally:
            await database.close()
    finally:
        await inside.close()
        await superuser.execute(f"DROP DATABASE {own.database} WITH (FORCE)")
        await superuser.close()


@asynccontextmanager
async def valkey_of(platform: Platform, server: str) -> AsyncIterator[PipelinedClient]:
    """A Valkey server in which everything is that the release before had there."""
    async with platform.valkey(server=server) as admin:
        for key, value in LEFT["valkey"][server].items():
            await admin.delete(key)
            if isinstance(value, str):
                await admin.set(key, bytes.fromhex(value))
            else:
                await admin.zadd(key, dict(value))
        client = PipelinedClient(services.valkey_url(platform.layout, platform.secrets, server=server))
        try:
            yield client
        finally:
            await client.close()
            await admin.delete(*LEFT["valkey"][server])


async def refusal(awaitable: Awaitable[object]) -> ServiceError:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever; its reason is what counts
        await awaitable
    known = as_service_error(caught.value)
    assert known is not None, caught.value
    return known


async def test_sessions_go_on_and_a_spent_token_still_ends_one(platform: Platform) -> None:
    async with database_of(platform, "user") as (_, database), valkey_of(platform, "valkey") as client:
        sessions = Sessions(
            database=database,
            store=SessionStore(client, now=a_minute_later, lifetime=timedelta(days=30), idle=timedelta(days=14)),
            access_tokens=AccessTokens(
                SigningKeys(keys.directory(platform.layout), 0), issuer="me", audience="api", lifetime=300, new_id=uuid7
            ),
            refresh_tokens=RefreshTokens(SECRETS["refresh_token_secret"]),
            crowd=100,
            grace=timedelta(seconds=10),
            now=a_minute_later,
            new_id=uuid7,
        )
        check = await SessionReader(client).read(HELD["session_id"], HELD["user_id"])
        assert check.user is not None
        assert is_valid(check.session, check.user)
        assert (check.user.email, check.user.display_name) == (HELD["email"], "Ada Lövelace")
        (record,) = await sessions.list(HELD["user_id"], HELD["session_id"])
        assert (record.user_agent, record.generation) == (HELD["user_agent"], 1)
        await sessions.refresh(HELD["refresh_token"], BROWSER)
        assert (await refusal(sessions.refresh(HELD["spent_refresh_token"], BROWSER))).reason == "INVALID_REFRESH_TOKEN"
        assert await sessions._store.find(HELD["session_id"]) is None


async def test_people_are_who_they_were(platform: Platform) -> None:
    async with database_of(platform, "user") as (_, database):
        async with database.connection() as connection:
            user = await users.get(connection, ME)
        assert (user.email, user.display_name, [role.value for role in user.roles]) == (
            HELD["email"],
            "Ada Lövelace",
            ["customer"],
        )
        passwords = Passwords(1, 1)
        try:
            assert await passwords.verify(user.password_hash, HELD["password"])
            assert not await passwords.verify(user.password_hash, "another")
        finally:
            passwords.close()
        devices = Devices(SECRETS["refresh_token_secret"])
        account = credentials._hash("address", HELD["email"].lower())
        assert devices.known(HELD["device_token"], account, user.credential_version) is not None
    copy = bytes.fromhex(LEFT["valkey"]["valkey"][f"user:{ME}"])
    assert UserMessage.FromString(copy.partition(b":")[2]).credential_version == user.credential_version


async def test_orders_answers_and_pages_are_what_they_were(platform: Platform) -> None:
    async with database_of(platform, "order") as (url, database), valkey_of(platform, "valkey-cache") as client:
        settings = order.settings.Settings.model_validate(
            {
                "database_url": url,
                "cache_url": "unix://nobody@/nowhere",
                "jwks_file": keys.jwks_file(platform.layout),
                "cursor_secret": SECRETS["order_cursor_secret"],
                "nats_url": "tls://nowhere:4222",
                "nats_certificates": "/nowhere",
            }
        )
        servicers = order.main.build(settings, database, client)
        caller = Caller(HELD["user_id"], HELD["session_id"], ("customer",))
        items = [(line["product_id"], line["quantity"]) for line in SAW["created"]["items"]]
        again = order_pb2.CreateOrderRequest(
            items=[order_pb2.OrderLine(product_id=product, quantity=quantity) for product, quantity in items],
            idempotency_key=HELD["keys"]["create"],
        )
        for kept in ("in Valkey", "in PostgreSQL"):
            with context.serving(RequestContext("golden-release", caller=caller)):
                shown = await servicers.orders.GetOrder(order_pb2.GetOrderRequest(id=HELD["orders"]["paid"]), None)
                first = await servicers.orders.CreateOrder(again, None)
                paid = await servicers.orders.PayOrder(
                    order_pb2.PayOrderRequest(
                        order_id=HELD["orders"]["paid"],
                        payment_token="tok_approved",
                        idempotency_key=HELD["keys"]["pay"],
                    ),
                    None,
                )
                declined = await refusal(
                    servicers.orders.PayOrder(
                        order_pb2.PayOrderRequest(
                            order_id=HELD["orders"]["declined"],
                            payment_token="tok_declined",
                            idempotency_key=HELD["keys"]["declined"],
                        ),
                        None,
                    )
                )
                product = await servicers.catalog.GetProduct(
                    catalog_pb2.GetProductRequest(id=SAW["product"]["id"]), None
                )
            assert (declined.reason, declined.facts["idempotency_replayed"]) == ("PAYMENT_DECLINED", "true"), kept
            assert (first.replayed, first.order.id, first.order.version) == (True, SAW["created"]["id"], 1), kept
            assert (paid.replayed, paid.order.version) == (True, SAW["paid"]["version"]), kept
            assert (shown.total.amount_minor, shown.items[0].name, shown.version) == (2800, "Goldener Käse", 2), kept
            assert (product.sku, product.available) == (SAW["product"]["sku"], SAW["product"]["available"]), kept
            async with platform.valkey(server="valkey-cache") as admin:
                await admin.delete(*LEFT["valkey"]["valkey-cache"])
        administrator = Caller(LEFT["rows"]["order"]["tables"]["idempotency_keys"][-1]["user_id"], "", ("admin",))
        with context.serving(RequestContext("golden-release", caller=administrator)):
            stock = await servicers.catalog.AdjustStock(
                catalog_pb2.AdjustStockRequest(
                    id=SAW["stock"]["id"], delta=5, reason="golden", idempotency_key=HELD["keys"]["stock"]
                ),
                None,
            )
        assert (stock.replayed, stock.product.available) == (True, SAW["stock"]["available"])
        with context.serving(RequestContext("golden-release", caller=caller)):
            page = paging_pb2.PageRequest(limit=1, cursor=HELD["cursors"]["orders"])
            rest = await servicers.orders.ListOrders(order_pb2.ListOrdersRequest(page=page), None)
            page = paging_pb2.PageRequest(limit=1, cursor=HELD["cursors"]["products"])
            goods = await servicers.catalog.ListProducts(
                catalog_pb2.ListProductsRequest(page=page, search="golden"), None
            )
        assert [found.id for found in rest.orders] == [HELD["orders"]["paid"]]
        assert [found.name for found in goods.products] == ["Goldenes Brot"]


def test_a_cursor_of_users_and_an_access_token_are_read() -> None:
    key = CursorSigner(SECRETS["user_cursor_secret"]).decode("users|example", HELD["cursors"]["users"], 1)
    assert key is not None
    assert UUID(key[0]).version == 7
    signing = jwt.PyJWKSet.from_dict(LEFT["jwks"])[jwt.get_unverified_header(HELD["access_token"])["kid"]]
    claims = jwt.decode(
        HELD["access_token"], signing.key, ["ES256"], audience="backend-api", options={"verify_exp": False}
    )
    assert (claims["sub"], claims["sid"]) == (HELD["user_id"], HELD["session_id"])


def test_a_stacks_secrets_stay_the_same(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text(json.dumps(SECRETS), encoding="utf-8")
    load_or_create(tmp_path)
    # What they are called may change; what they are may not. Only what that release did not have comes new.
    kept = json.loads((tmp_path / "secrets.json").read_text(encoding="utf-8"))
    assert set(SECRETS.values()) <= set(kept.values())
    assert [name for name, value in kept.items() if value not in SECRETS.values()] == [
        "notification_database_password",
        "trace_secret",
    ]
