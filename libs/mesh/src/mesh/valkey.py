"""What each service may do on the Valkey servers: users by access control lists, none of them an administrator.

Nothing that looks for keys (KEYS, SCAN, DBSIZE), sees other clients, or changes the server or its scripts.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesh.topology import SERVICES, Service

ADMINISTRATOR = "admin"


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
