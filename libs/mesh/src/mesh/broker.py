"""The broker of events, NATS JetStream: its configuration, who may do what there, and which streams and consumers there are.

Everything follows from the table of services: who has a cell `publishes` or `consumes` has an identity, its certificate's
SPIFFE URI, and may publish the events of its own packages, read those that its consumer is given, and nothing else: no other
subject, no stream's or consumer's configuration, no answers to others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from chassis.events import limits, subjects

from mesh.topology import BROKER, OPERATORS, SERVICES, Service

# Of one broker. A connection is one process of a service, and there are few others; a subscription is its answers.
_MAX_CONNECTIONS = 512
_MAX_SUBSCRIPTIONS = 64
# What may wait for a connection that does not read; then it is closed.
_MAX_PENDING_BYTES = 16 * 1024 * 1024
# Streams are files; this is for what the server itself may keep in memory besides.
_MEMORY_BYTES = 16 * 1024 * 1024
# Where a server is asked whether it works, in the account of all that is the server's; and where the answer goes to.
HEALTH, HEALTH_ANSWER = "$SYS.REQ.SERVER.PING.HEALTHZ", "_INBOX.health"
# By this time an event that was published twice, by its id, is stored once. Whatever comes later, the inbox sees.
DUPLICATES_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream: one that is full refuses what is published, and loses nothing."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    max_message_bytes: int
    # Whether it keeps an event until every consumer that wants it has it, and no longer; else until somebody removes it.
    until_consumed: bool


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable consumer: what a service has not yet acted on."""

    service: str
    subjects: tuple[str, ...]


STREAMS = (
    Stream(
        subjects.EVENTS,
        (f"{subjects.EVENTS}.>", f"{subjects.REPLAYS}.*"),
        1024**3,
        limits.MAX_EVENT_BYTES,
        until_consumed=True,
    ),
    Stream(
        subjects.DEAD_LETTERS,
        (f"{subjects.DEAD_LETTERS}.*",),
        128 * 1024**2,
        limits.MAX_EVENT_BYTES + limits.MAX_FAULT_BYTES,
        until_consumed=False,
    ),
)
# All streams together, and room for what is being removed.
STORE_BYTES = 2 * sum(stream.max_bytes for stream in STREAMS)


def consumers(services: Sequence[Service] = SERVICES) -> tuple[Consumer, ...]:
    """One for each service that consumes, called as the service is."""
    return tuple(
        Consumer(service.name, (*map(subjects.of_type, service.consumes), subjects.of_replays(service.name)))
        for service in services
        if service.consumes
    )


@dataclass(frozen=True, slots=True)
class Permissions:
    """The subjects that an identity may publish to, and be given."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions(service: Service) -> Permissions:
    """What a service may do at the broker."""
    publish = [subjects.of_type(f"{package}.*") for package in service.publishes]
    if service.consumes:
        own = f"{subjects.EVENTS}.{service.name}"
        publish += [
            # Asks for events, and how many there are; says what has become of one.
            f"$JS.API.CONSUMER.MSG.NEXT.{own}",
            f"$JS.API.CONSUMER.INFO.{own}",
            f"$JS.API.CONSUMER.UNPIN.{own}",
            f"$JS.ACK.{own}.>",
            subjects.of_dead_letters(service.name),
            # How many dead letters there are, by consumer: numbers alone.
            f"$JS.API.STREAM.INFO.{subjects.DEAD_LETTERS}",
        ]
    return Permissions(tuple(publish), (f"{subjects.inbox(service.name)}.>",))


def accounts(trust_domain: str, services: Sequence[Service] = SERVICES) -> str:
    """Who there is and what they may do, as a file that a server's configuration includes: whoever runs the server."""
    users = [_user(trust_domain, service.name, permissions(service)) for service in services if service.uses_broker] + [
        _user(trust_domain, OPERATORS, Permissions((">",), (">",)))
    ]
    limits = {"max_mem": 0, "max_file": STORE_BYTES, "max_streams": len(STREAMS), "max_consumers": 64}
    # Whoever has the server's own certificate may ask whether it works, and nothing else.
    health = _user(trust_domain, BROKER, Permissions((HEALTH,), (HEALTH_ANSWER,)))
    found = {"BACKEND": {"jetstream": limits, "users": users}, "SYSTEM": {"users": [health]}}
    return f"accounts: {json.dumps(found, indent=2)}\nsystem_account: SYSTEM\n"


def _user(trust_domain: str, name: str, permitted: Permissions) -> dict[str, object]:
    return {
        # As it is in the certificate (`verify_and_map`).
        "user": f"spiffe://{trust_domain}/{name}",
        "permissions": {
            "publish": {"allow": list(permitted.publish)},
            "subscribe": {"allow": list(permitted.subscribe)},
        },
    }


@dataclass(frozen=True, slots=True)
class Server:
    """One NATS server.

    Attributes:
        address, port: where clients come to.
        certificates: tls.crt, tls.key and ca.crt of its own.
        directory: of its streams.
        accounts: the file of `accounts`.
        monitor: an address and a port where it tells by plain HTTP whether it works (`/healthz`), and whoever gets there much
            more: NATS has no rules for it. None: nowhere.
        sync: how often what was acknowledged is written through to the disk: "always" before it is, or every so often ("1s"),
            which is as safe while the machine runs, whatever becomes of the process.
    """

    address: str
    port: int
    certificates: PurePath
    directory: PurePath
    accounts: PurePath
    monitor: str | None = None
    sync: str = "always"


def configuration(server: Server) -> str:
    """What a server is started with."""
    tls = {
        "cert_file": str(server.certificates / "tls.crt"),
        "key_file": str(server.certificates / "tls.key"),
        "ca_file": str(server.certificates / "ca.crt"),
        # No certificate, no connection; and its URI is who it is.
        "verify_and_map": True,
        "min_version": "1.3",
        # Before a single byte is said.
        "handshake_first": True,
        "timeout": 5,
    }
    jetstream = {
        "store_dir": str(server.directory),
        "max_memory_store": _MEMORY_BYTES,
        "max_file_store": STORE_BYTES,
        # NATS's own choice, two minutes, would lose that much of what it has acknowledged when the machine stops.
        "sync_interval": server.sync,
    }
    settings: dict[str, object] = {
        "server_name": BROKER,
        "listen": f"{server.address}:{server.port}",
        "tls": tls,
        "jetstream": jetstream,
        "max_payload": limits.MAX_EVENT_BYTES + limits.MAX_FAULT_BYTES,
        "max_connections": _MAX_CONNECTIONS,
        "max_subscriptions": _MAX_SUBSCRIPTIONS,
        "max_pending": _MAX_PENDING_BYTES,
        "max_control_line": 4096,
        "write_deadline": "5s",
        "ping_interval": "10s",
        "logtime_utc": True,
    }
    if server.monitor is not None:
        settings["http"] = server.monitor
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()]
    return "\n".join([*lines, f"include {json.dumps(str(server.accounts), ensure_ascii=False)}", ""])
