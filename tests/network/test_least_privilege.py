"""What a service may do beside its own work: nothing. And what others on the machine may read: nothing."""

from __future__ import annotations

import stat

import asyncpg
import pytest
from chassis.valkey import PipelinedClient, Script
from contracts.bff.v1 import models
from devstack.layout import ROOT
from mesh.topology import SERVICES, VALKEY_SERVERS
from redis.asyncio import Redis

from conftest import People, Platform
from devstack import postgres, privileges, services

USERS = {service.name: service.valkey for service in SERVICES if service.valkey is not None}
WITH_DATABASES = [service.name for service in SERVICES if service.database is not None]
WITH_AUDIT_TRAILS = [
    name for name in WITH_DATABASES if any((ROOT / f"services/{name}/db/migrations").glob("*_audit.sql"))
]
# What the server lets anybody do, who has a password or is about to say it.
_ANYBODYS = {"auth", "hello", "quit", "reset"}
_LOOKS_FOR_KEYS = {"keys", "scan", "randomkey", "dbsize"}
_ON_THE_SERVER = {
    "script|flush", "script|kill", "function|load", "function|flush", "function|restore", "fcall", "flushall", "flushdb",
    "config|get", "config|set", "client|list", "client|kill", "acl|list", "acl|setuser", "debug", "shutdown", "monitor",
    "save", "replicaof", "module|load", "info", "slowlog|get", "memory|usage", "object|freq", "publish", "subscribe",
    "swapdb", "select", "move", "copy", "dump", "restore", "migrate", "sort", "wait", "latency|reset", "cluster|reset",
}  # fmt: skip


async def _commands(client: Redis) -> list[str]:
    """Every command and subcommand of the server that can be run."""
    listed = await client.execute_command("COMMAND LIST")  # type: ignore[no-untyped-call]
    names = {name.decode() for name in listed}
    return sorted(names - {name.partition("|")[0] for name in names if "|" in name})


async def _may(client: Redis, user: str, command: str) -> bool:
    """Whether the server would let a user run a command, whatever its keys."""
    ((_, arity, *_),) = await client.execute_command("COMMAND INFO", command)  # type: ignore[no-untyped-call]
    words = command.split("|")
    arguments = [*words, *["0"] * (abs(arity) - len(words))]
    answer = await client.execute_command("ACL DRYRUN", user, *arguments)  # type: ignore[no-untyped-call]
    return b"to run the" not in answer


@pytest.mark.parametrize("user", sorted(USERS))
async def test_a_valkey_user_runs_the_commands_of_its_service_and_no_other(stack: Platform, user: str) -> None:
    own = USERS[user]
    async with stack.valkey(server=own.server) as admin:
        commands = await _commands(admin)
        allowed = {name for name in commands if await _may(admin, user, name)}
    assert set(commands) >= _LOOKS_FOR_KEYS | _ON_THE_SERVER
    assert allowed - _ANYBODYS <= set(own.commands)
    assert set(own.commands) <= allowed
    assert not allowed & (_LOOKS_FOR_KEYS | _ON_THE_SERVER)


@pytest.mark.parametrize("user", sorted(name for name, user in USERS.items() if "eval" in user.commands))
async def test_a_script_may_do_no_more_than_who_sends_it(stack: Platform, user: str) -> None:
    client = PipelinedClient(services.valkey_url(stack.layout, stack.secrets, user))
    try:
        assert await client.evaluate(Script("return 1"), [], []) == 1
        for call in (
            "'KEYS', '*'",
            "'FLUSHALL'",
            "'SCRIPT', 'FLUSH'",
            "'GET', 'somebody:else'",
            "'CONFIG', 'GET', '*'",
        ):
            with pytest.raises(Exception, match=r"(?i)not allowed|permission|ACL failure"):
                await client.evaluate(Script(f"return redis.call({call})"), [], [])
    finally:
        await client.close()


async def test_the_services_miss_no_command(people: People, stack: Platform) -> None:
    """Everything that they do in a day is allowed: nothing is in the servers' logs of refusals."""
    for server in VALKEY_SERVERS:
        async with stack.valkey(server=server) as admin:
            await admin.acl_log_reset()
    client, login = await people.newcomer()
    product = await people.product()
    order = await people.order(client, (product, 1))
    assert (await client.get_order(order.id)).data == order
    tokens = (await client.login(login)).data
    assert tokens.refresh_token is not None
    await client.refresh_tokens(models.RefreshRequest(refresh_token=tokens.refresh_token))
    await client.list_my_sessions()
    await client.logout()
    for server in VALKEY_SERVERS:
        async with stack.valkey(server=server) as admin:
            assert await admin.acl_log() == []


@pytest.mark.parametrize("service", WITH_DATABASES)
async def test_a_database_role_comes_into_its_own_database_only(stack: Platform, service: str) -> None:
    own = postgres.database_of(service, stack.secrets)
    superuser = await stack.database("postgres")
    names = [row["datname"] for row in await superuser.fetch("SELECT datname FROM pg_database")]
    await superuser.close()
    assert {"postgres", "template0", "template1", *(d.database for d in postgres.databases(stack.secrets))} <= set(
        names
    )
    for name in names:
        url = own.url(stack.layout).replace(f"/{own.database}?", f"/{name}?")
        if name == own.database:
            await (await asyncpg.connect(url)).close()
        else:
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError)):
                await asyncpg.connect(url)


@pytest.mark.parametrize("service", WITH_DATABASES)
async def test_a_database_role_makes_nothing_and_sees_no_migrations(stack: Platform, service: str) -> None:
    own = postgres.database_of(service, stack.secrets)
    connection = await asyncpg.connect(own.url(stack.layout))
    try:
        for statement in (
            "SELECT * FROM schema_migrations",
            "INSERT INTO schema_migrations VALUES ('1')",
            "DELETE FROM schema_migrations",
            "CREATE TEMP TABLE x (y int)",
            "CREATE TABLE public.x (y int)",
            "CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE SCHEMA x",
            "SELECT lo_create(0)",
            "SELECT lo_from_bytea(0, 'x')",
            "CREATE DATABASE x",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('/etc/hostname')",
            "SELECT * FROM pg_authid",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "SET ROLE postgres",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("service", WITH_AUDIT_TRAILS)
async def test_a_database_role_adds_to_its_audit_trail_and_takes_nothing_from_it(stack: Platform, service: str) -> None:
    own = postgres.database_of(service, stack.secrets)
    connection = await asyncpg.connect(own.url(stack.layout))
    try:
        granted = await connection.fetch(
            "SELECT privilege, has_table_privilege('audit', privilege) AS granted FROM unnest($1::text[]) AS privilege",
            ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES", "MAINTAIN"],
        )
        assert {row["privilege"] for row in granted if row["granted"]} == {"SELECT", "INSERT"}
        assert not await connection.fetchval("SELECT has_any_column_privilege('audit', 'UPDATE')")
        # Nothing is old enough to be forgotten.
        assert await connection.fetchval("SELECT forget_audit(1000)") == 0
    finally:
        await connection.close()


def test_everything_in_the_data_directory_is_its_owners_alone(stack: Platform) -> None:
    found = [stack.layout.data_dir, *stack.layout.data_dir.rglob("*")]
    assert {"state.json", "edge.log", "valkey-cache.conf", "appendonlydir", "PG_VERSION"} <= {
        path.name for path in found
    }
    open_to_others = [
        f"{stat.filemode(mode)} {path}"
        for path in found
        if not stat.S_ISLNK(mode := path.lstat().st_mode) and mode & 0o077
    ]
    assert open_to_others == []


def test_postgresql_needs_no_capability_to_work_in_a_private_directory(stack: Platform) -> None:
    """As root, the server is another user that has nothing more than its own files."""
    if privileges.unprivileged_user() is None:
        return
    status = (stack.layout.data_dir.__class__("/proc") / str(stack.pid("postgres")) / "status").read_text(
        encoding="utf-8"
    )
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert lines["CapEff"] == "0" * 16
    assert lines["Uid"].split()[0] != "0"
