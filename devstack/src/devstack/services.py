"""How the processes of a stack are configured: command lines, environments, probes."""

from __future__ import annotations

import os
import stat
import sys

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from devstack import keys, postgres, privileges, valkey
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import Secrets

_PROBE_SECONDS = 2.0


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


def valkey_url(layout: Layout, secrets: Secrets, user: str = "admin", server: str = "") -> str:
    """How a service connects to its Valkey server, or an administrator to either (the state server by default)."""
    home = server or (valkey.STATE if user == "admin" else valkey.USERS[user].server)
    return f"unix://{user}:{secrets.valkey_of(user)}@{valkey.socket(layout, home)}?db=0"


async def valkey_answers(layout: Layout, secrets: Secrets, server: str) -> bool:
    """Whether a Valkey server answers PING."""
    client = Redis.from_url(valkey_url(layout, secrets, server=server), socket_timeout=_PROBE_SECONDS)
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


# What a child may know of the shell that started the stack: where programs and this user's files are. Anything else (a
# proxy, a LOG_LEVEL, a locale without UTF-8) would configure a service behind its operator's back.
_OF_THE_SHELL = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def base_environment() -> dict[str, str]:
    """What every process of a stack is started with."""
    locale = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
    kept = {name: os.environ[name] for name in _OF_THE_SHELL if name in os.environ}
    return kept | {"LC_ALL": locale, "PYTHONUTF8": "1"}


def environment(service: str, layout: Layout, secrets: Secrets, options: Options) -> dict[str, str]:
    """The configuration of a service, as docs/configuration.md describes it."""
    if service == "edge":
        return {}
    name = "CACHE_URL" if valkey.USERS[service].server == valkey.CACHE else "VALKEY_URL"
    variables = {
        name: valkey_url(layout, secrets, service),
        "ADMISSION": str("admission" not in options.without).lower(),
    }
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
    if service == "order" and options.rate_limit_scale > 1:
        # Whoever multiplies the limits of the contract does not want those of a user in the way either.
        variables |= {"MAX_UNPAID_ORDERS": "0", "MAX_UNPAID_PIECES": "0"}
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
