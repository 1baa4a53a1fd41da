"""New passwords for every user of the servers, while everybody serves: `backend secrets rotate`.

First every service has both passwords in its file (`chassis.password_files`), then each server goes from the old one to
the new one, then the files have the new one only, which makes the services renew their connections. Whoever was
connected when the servers changed and has not renewed its connection is ended. What has been decided is written down
first, so that a rotation that was cut off is finished by the next one, or by the next start of the stack.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import asyncpg
from chassis.private_files import write_private
from mesh.topology import VALKEY_SERVERS
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from devstack import postgres, services, valkey
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import (
    OF_SERVICES,
    Secrets,
    load_or_create,
    made_anew,
    of_json,
    rotation_journal,
    write_password,
    write_passwords,
)

# Services look once a second, and what they do with a connection takes no longer than their longest request.
PATIENCE_SECONDS = 15.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did with connections that had presented an old password."""

    # Ended by force after everybody had had the time to renew them: whose they were is not known.
    ended: int


async def rotate(layout: Layout, options: Options, patience: float = PATIENCE_SECONDS) -> Rotation:
    """New passwords for the databases' roles and Valkey's users, the administrators' among them.

    Args:
        layout: of the stack, which runs.
        options: how it was started.
        patience: seconds until connections that were opened with an old password are ended by force.
    """
    with _alone(layout):
        old = load_or_create(layout.secrets)
        if not rotation_journal(layout.secrets).exists():
            write_private(rotation_journal(layout.secrets), made_anew(old).as_json())
        return await _finish(layout, old, options, patience)


async def finish(layout: Layout, options: Options) -> None:
    """Finish a rotation that was cut off; at the start of a stack, before any service."""
    with _alone(layout):
        await _finish(layout, load_or_create(layout.secrets), options, PATIENCE_SECONDS)


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    descriptor = os.open(layout.secrets, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def _finish(layout: Layout, old: Secrets, options: Options, patience: float) -> Rotation:
    """Every step may be repeated: where one was done already, `old` has the new password."""
    new = of_json(json.loads(rotation_journal(layout.secrets).read_text(encoding="utf-8")))
    # The old one first: the new one is in force already only after a rotation that was cut off, and a server logs every
    # password that it refuses.
    async with _superuser(layout, [old, new]) as database, _administrators(layout, [old, new]) as caches:
        for name in OF_SERVICES:
            write_password(layout.secrets, name, new[name], old[name])
        for service in postgres.databases(new):
            await _alter(database, service.role, service.password)
        await _alter(database, postgres.SUPERUSER, new["postgres_password"])
        for server, client in caches.items():
            valkey.configure(server, layout, new, options)
            for user in valkey.users_of(server):
                await client.acl_setuser(
                    user, enabled=True, reset_passwords=True, passwords=[f"+{new.valkey_of(user)}"]
                )
        # From here on nobody connects with an old one.
        connected = await _connections(database, caches)
        write_private(layout.secrets / "secrets.json", new.as_json())
        write_passwords(layout.secrets, new)
        await _let_go(database, caches, connected, patience)
        ended = await _end(database, caches, connected)
    rotation_journal(layout.secrets).unlink()
    return Rotation(ended)


async def _alter(database: asyncpg.Connection, role: str, password: str) -> None:
    # Generated passwords (base64url) hold nothing that would need quoting.
    await database.execute(f"ALTER ROLE {role} PASSWORD '{password}'")


@asynccontextmanager
async def _superuser(layout: Layout, accepted: list[Secrets]) -> AsyncIterator[asyncpg.Connection]:
    for secrets in accepted:
        try:
            connection = await asyncpg.connect(postgres.superuser_url(layout, secrets, "postgres"))
        except asyncpg.InvalidPasswordError:
            continue
        try:
            yield connection
        finally:
            await connection.close()
        return
    raise RuntimeError("PostgreSQL takes neither the old nor the new password of its superuser")


def refuses_password(error: RedisError) -> bool:
    """Whether that is what an error of Valkey says; redis-py wraps it in one of the connection's."""
    return isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError)


@asynccontextmanager
async def _administrators(layout: Layout, accepted: list[Secrets]) -> AsyncIterator[dict[str, Redis]]:
    clients = {}
    try:
        for server in VALKEY_SERVERS:
            for secrets in accepted:
                client = Redis.from_url(
                    services.valkey_url(layout, secrets, server=server),
                    single_connection_client=True,
                    retry=Retry(NoBackoff(), 0),
                )
                try:
                    await client.ping()
                except RedisError as error:
                    await client.aclose()
                    if refuses_password(error):
                        continue
                    raise
                clients[server] = client
                break
            else:
                raise RuntimeError(f"{server} takes neither the old nor the new password of its administrator")
        yield clients
    finally:
        for client in clients.values():
            await client.aclose()


@dataclass(frozen=True, slots=True)
class _Connections:
    """Who is connected, but for us: PostgreSQL's process ids, and client ids by Valkey server."""

    backends: frozenset[int]
    clients: dict[str, frozenset[int]]


async def _connections(database: asyncpg.Connection, caches: dict[str, Redis]) -> _Connections:
    rows = await database.fetch(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    clients = {}
    for server, client in caches.items():
        own = await client.client_id()
        listed: list[dict[str, str]] = await client.client_list()
        clients[server] = frozenset(int(entry["id"]) for entry in listed) - {own}
    return _Connections(frozenset(row["pid"] for row in rows), clients)


async def _left(database: asyncpg.Connection, caches: dict[str, Redis], before: _Connections) -> _Connections:
    now = await _connections(database, caches)
    return _Connections(
        before.backends & now.backends, {server: before.clients[server] & now.clients[server] for server in caches}
    )


async def _let_go(
    database: asyncpg.Connection, caches: dict[str, Redis], before: _Connections, patience: float
) -> None:
    """Wait until the services have renewed their connections."""
    give_up = asyncio.get_running_loop().time() + patience
    while asyncio.get_running_loop().time() < give_up:
        left = await _left(database, caches, before)
        if not left.backends and not any(left.clients.values()):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _end(database: asyncpg.Connection, caches: dict[str, Redis], before: _Connections) -> int:
    """End what is still connected with an old password; how many that were."""
    left = await _left(database, caches, before)
    for pid in left.backends:
        await database.execute("SELECT pg_terminate_backend($1)", pid)
    for server, clients in left.clients.items():
        for client_id in clients:
            await caches[server].client_kill_filter(_id=str(client_id))
    return len(left.backends) + sum(map(len, left.clients.values()))
