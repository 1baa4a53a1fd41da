"""What each service may do on the Valkey servers: users by access control lists, none of them an administrator.

Nothing that looks for keys (KEYS, SCAN, DBSIZE), sees other clients, or changes the server or its scripts.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesh.topology import CACHE, SERVICES, STATE, Service

ADMINISTRATOR = "admin"
# The bounds of the servers, where nobody says otherwise.
MEMORY_MIB = {STATE: 512, CACHE: 256}


def of_server(server: str) -> tuple[Service, ...]:
    """The services with a user there."""
    return tuple(service for service in SERVICES if service.valkey is not None and service.valkey.server == server)


def access_control(server: str, passwords: Mapping[str, str]) -> list[str]:
    """The users of a server, as lines of its configuration or of an ACL file.

    Args:
        server: one of `VALKEY_SERVERS`.
        passwords: of each user, the administrator's among them.
    """
    return [
        "user default off",
        f"user {ADMINISTRATOR} on >{passwords[ADMINISTRATOR]} ~* &* +@all",
        *(f"user {service.name} on >{passwords[service.name]} {rules(service)}" for service in of_server(server)),
    ]


def rules(service: Service) -> str:
    """What its user may do, in the words of ACL SETUSER.

    Raises:
        ValueError: it has no user.
    """
    if service.valkey is None:
        raise ValueError(f"{service.name} uses no Valkey")
    keys = [*(f"~{pattern}" for pattern in service.valkey.keys), *(f"%R~{pattern}" for pattern in service.valkey.reads)]
    commands = [f"+{command}" for command in service.valkey.commands]
    return " ".join(["resetchannels", *keys, "-@all", *commands])


def keeping(server: str, memory_mib: int) -> list[str]:
    """How a server keeps what it is given, as lines of its configuration (ADR 0015)."""
    bound = f"maxmemory {memory_mib}mb"
    if server == STATE:
        # When it is full, writes fail and logins answer 503, rather than sessions disappearing silently; what is there
        # goes on being read.
        return ["appendonly yes", "appendfsync everysec", bound, "maxmemory-policy noeviction"]
    # LRU and nothing else: by time to live or by frequency, a floor (one minute to live, seldom read) would go before
    # the copies that it forbids (ADR 0005).
    return ["appendonly no", bound, "maxmemory-policy allkeys-lru", "maxmemory-samples 10"]
