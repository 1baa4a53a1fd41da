"""How the services of a stack are configured: their environments."""

from __future__ import annotations

from devstack import keys, postgres, valkey
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import Secrets, password_file


def valkey_url(layout: Layout, secrets: Secrets, user: str = "admin", server: str = "") -> str:
    """How a service connects to its Valkey server, or an administrator to either (the state server by default)."""
    home = server or (valkey.STATE if user == "admin" else valkey.USERS[user].server)
    return f"unix://{user}:{secrets.valkey_of(user)}@{valkey.socket(layout, home)}?db=0"


def environment(service: str, layout: Layout, secrets: Secrets, options: Options) -> dict[str, str]:
    """The configuration of a service, as docs/configuration.md describes it."""
    if service == "edge":
        return {}
    server = valkey.USERS[service].server
    name = "CACHE" if server == valkey.CACHE else "VALKEY"
    variables = {
        f"{name}_URL": f"unix://{service}@{valkey.socket(layout, server)}?db=0",
        f"{name}_PASSWORD_FILE": str(password_file(layout.secrets, f"{service}_valkey_password")),
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
        "DATABASE_URL": database.url(layout, with_password=False),
        "DATABASE_PASSWORD_FILE": str(password_file(layout.secrets, f"{service}_database_password")),
        "CURSOR_SECRET": cursor_secret,
        "JWKS_FILE": str(keys.jwks_file(layout)),
    }
