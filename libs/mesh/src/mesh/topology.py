"""The table of services: one row each, and nowhere else a list of them.

Everything else follows from a row: ports, the identity that certificates name, who may call whom, the database role and
its grants, what may be done in Valkey, secrets, environment, the order of starting and stopping, what is installed and
generated, and the documents. docs/extending.md shows how a row is added.

A service has one name. It is its folder (`services/NAME`), its package (`import NAME`), its distribution
(`backend-NAME`), its process (`NAME`, and from the second replica on `NAME-2`) and the end of its identity
(`spiffe://TRUST_DOMAIN/NAME`).

Standard library only, and no newer than Python 3.9: tools/bootstrap.py reads this file before anything is installed, with
whatever Python there is.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Union

# The two Valkey servers: of what must not disappear, and of copies that may be dropped at any time (ADR 0015).
STATE = "valkey"
CACHE = "valkey-cache"
VALKEY_SERVERS = (STATE, CACHE)
# The identity of the people who operate the backend, beside those of the rows.
OPERATORS = "ops"
# What a stack on one machine runs beside the rows, and where: it keeps what they tell of themselves.
CONSOLE, CONSOLE_PORT = "console", 8090
# The broker of events, NATS (ADR 0039), and what tells whether it works, where nobody else gets there.
BROKER, BROKER_PORT, BROKER_OPS_PORT = "nats", 8095, 8096
# What takes mail on one machine, by SMTP, and shows it instead of delivering it.
MAILBOX, MAILBOX_PORT = "mailbox", 8097
# The ports of a stack that are no row's, by what listens there.
OTHER_PORTS: Mapping[str, int] = {
    CONSOLE: CONSOLE_PORT,
    BROKER: BROKER_PORT,
    MAILBOX: MAILBOX_PORT,
}
# All ports of a stack lie within one hundred, before its offset: stacks whose offsets differ by a hundred never meet.
FIRST_PORT = 8080
PORTS_EACH = 100
# What processes, databases' users and packages of ours are called that are no services.
_TAKEN = {
    OPERATORS,
    CONSOLE,
    BROKER,
    MAILBOX,
    "admin",
    "audit",
    "postgres",
    "public",
    "supervisor",
    "stack",
    # Volumes and jobs of Compose (mesh.compose).
    "authority",
    "jwks",
    "keys",
    "prepare",
    "migrations",
    "streams",
    "certificates",
    "collector",
    "jaeger",
    "prometheus",
    "alertmanager",
    "grafana",
    "contracts",
    "chassis",
    "mesh",
    "devstack",
    "tests",
}
_NAME = re.compile(r"[a-z][a-z0-9_]*[a-z0-9]")
_TOKENS = ("", "verifies", "signs")
# A protobuf package with its version, and a message in one.
_PACKAGE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.v[1-9][0-9]*")
_EVENT = re.compile(_PACKAGE.pattern + r"\.[A-Z][A-Za-z0-9]*")


@dataclass(frozen=True)
class Database:
    """A database of the service's own, which no other service's role can connect to."""

    name: str
    # Reads and writes rows, and changes no schema.
    role: str
    # The directory of its migrations and queries, in the service's folder.
    schema: str = "db"


@dataclass(frozen=True)
class Valkey:
    """A user on one of the Valkey servers."""

    server: str
    # Every command it sends, those inside its scripts included.
    commands: tuple[str, ...]
    # Patterns of the keys that are its own, and of others' keys that it reads.
    keys: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    # Those of its own keys that stay when its database goes back to a backup: they say what has happened, whatever the
    # database says. All others are about rows that may then be gone.
    outlast_restores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Service:
    """A row: a service, which is Python inside an Envoy."""

    name: str
    # Of its first replica; each further one has the next of both.
    port: int
    ops_port: int
    # What it serves, below api/: protobuf files, or one OpenAPI document.
    contracts: tuple[str, ...]
    # As how many processes it may run.
    replicas: int = 1
    # The services it calls.
    upstreams: tuple[str, ...] = ()
    database: Database | None = None
    valkey: Valkey | None = None
    # Secrets that its replicas share and nobody else knows, each a variable of this name in capitals.
    secrets: tuple[str, ...] = ()
    # What it does with access tokens: nothing, "verifies", or "signs" (and verifies).
    tokens: str = ""
    # Variables by which it is told how the mesh is run (mesh/variables.py has their values).
    policies: tuple[str, ...] = ()
    # The protobuf packages whose events it publishes, and no other service does: "order.v1".
    publishes: tuple[str, ...] = ()
    # The events that it acts on, whoever publishes them: "order.v1.OrderPlaced".
    consumes: tuple[str, ...] = ()
    # Whether it is told a mail server (SMTP_URL).
    sends_mail: bool = False

    @property
    def uses_broker(self) -> bool:
        """Whether it has an identity at the broker."""
        return bool(self.publishes or self.consumes)

    @property
    def folder(self) -> str:
        """Where its code is, from the root of the repository."""
        return f"services/{self.name}"

    @property
    def package(self) -> str:
        """What its code is imported as."""
        return self.name

    @property
    def distribution(self) -> str:
        """What pip calls it."""
        return f"backend-{self.name}"

    @property
    def serves_grpc(self) -> bool:
        """Whether it is called over gRPC; else over HTTP."""
        return all(contract.endswith(".proto") for contract in self.contracts)

    @property
    def ports(self) -> dict[int, str]:
        """Each port it may listen on, and what for."""
        return {
            first + number: _listener(self.name, listener, number + 1)
            for first, listener in ((self.port, ""), (self.ops_port, "_ops"))
            for number in range(self.replicas)
        }


@dataclass(frozen=True)
class Edge:
    """A row: the edge, an Envoy without Python, and the only process that clients reach."""

    name: str
    # HTTP over TCP, and HTTPS over TCP and (HTTP/3) UDP.
    port: int
    tls_port: int
    ops_port: int
    # The service that answers the public operations, and the one that counts requests and connections.
    api: str
    limiter: str
    replicas: int = 1

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The services it calls."""
        return (self.api, self.limiter)

    @property
    def ports(self) -> dict[int, str]:
        """Each port it listens on, and what for."""
        return {self.port: "public", self.tls_port: "public_tls", self.ops_port: f"{self.name}_ops"}


Row = Union[Service, Edge]  # noqa: UP007 - Python 3.9 makes no union of classes by |

TABLE: tuple[Row, ...] = (
    Service(
        name="limiter",
        port=8091,
        ops_port=8141,
        contracts=(
            "proto/envoy/service/ratelimit/v3/rls.proto",
            "proto/opentelemetry/proto/collector/logs/v1/logs_service.proto",
        ),
        valkey=Valkey(
            STATE,
            keys=("limit:*",),
            commands=("ping", "set", "time", "eval", "evalsha", "hgetall", "hdel", "hincrby", "pexpire"),
        ),
        policies=("RATE_LIMIT_SCALE", "CONNECTION_SECONDS"),
    ),
    Service(
        name="user",
        port=8111,
        ops_port=8161,
        replicas=8,
        contracts=(
            "proto/user/v1/user.proto", "proto/user/v1/session.proto", "proto/user/v1/contact.proto",
            "proto/user/v1/audit.proto",
        ),
        database=Database("userdb", role="user_service"),
        valkey=Valkey(
            STATE,
            keys=("user:*", "session:*", "sessions:*", "throttle:*"),
            commands=(
                "ping", "get", "mget", "set", "del", "ttl", "expire", "pexpire", "time", "eval", "evalsha", "zadd",
                "zrem", "zrange", "zrevrange", "hget", "hmget", "hset", "hincrby", "hincrbyfloat",
            ),
            # Counts of failed logins.
            outlast_restores=("throttle:*",),
        ),
        secrets=("cursor_secret", "refresh_token_secret"),
        tokens="signs",
        publishes=("user.v1",),
    ),
    Service(
        name="order",
        port=8121,
        ops_port=8171,
        replicas=8,
        contracts=("proto/order/v1/order.proto", "proto/order/v1/catalog.proto", "proto/order/v1/audit.proto"),
        database=Database("orderdb", role="order_service"),
        valkey=Valkey(CACHE, keys=("order:*",), commands=("ping", "get", "set", "eval", "evalsha")),
        secrets=("cursor_secret",),
        tokens="verifies",
        policies=("MAX_DECLINED_PAYMENTS", "MAX_UNPAID_ORDERS", "MAX_UNPAID_PIECES"),
        publishes=("order.v1",),
    ),
    Service(
        name="notification",
        port=8134,
        ops_port=8144,
        replicas=4,
        contracts=("proto/notification/v1/notification.proto",),
        upstreams=("user",),
        database=Database("notificationdb", role="notification_service"),
        tokens="verifies",
        consumes=(
            "order.v1.OrderPlaced", "order.v1.OrderShipped", "order.v1.OrderDelivered", "order.v1.OrderRefunded",
            "user.v1.UserRegistered",
        ),
        sends_mail=True,
    ),
    Service(
        name="bff",
        port=8101,
        ops_port=8151,
        replicas=8,
        contracts=("openapi/bff.v1.yaml",),
        upstreams=("user", "order", "notification"),
        # The session check of every request, and nothing else.
        valkey=Valkey(STATE, reads=("session:*", "user:*"), commands=("ping", "get", "mget")),
        tokens="verifies",
        policies=("ALLOWED_ORIGINS",),
    ),
    Edge(name="edge", port=8080, tls_port=8143, ops_port=8140, api="bff", limiter="limiter"),
)  # fmt: skip
SERVICES: tuple[Service, ...] = tuple(row for row in TABLE if isinstance(row, Service))
EDGE: Edge = next(row for row in TABLE if isinstance(row, Edge))


def row(name: str) -> Row:
    """The row of a service or the edge.

    Raises:
        KeyError: there is none of this name.
    """
    for found in TABLE:
        if found.name == name:
            return found
    raise KeyError(name)


def service_of(process: str) -> str:
    """Whose process it is: order-2 is the Order service's. Any other name is its own."""
    name, _, number = process.rpartition("-")
    return name if name and number.isdigit() else process


def levels(table: Sequence[Row] = TABLE) -> tuple[tuple[str, ...], ...]:
    """The names by when they start: whoever is called before whoever calls. They stop the other way round.

    Those that call each other in a circle, which is a fault, are all of the last level.
    """
    waiting = {entry.name: set(entry.upstreams) for entry in table}
    found: list[tuple[str, ...]] = []
    while waiting:
        level = _calls_none_of(waiting) or tuple(waiting)
        found.append(level)
        waiting = {name: upstreams for name, upstreams in waiting.items() if name not in level}
    return tuple(found)


def _calls_none_of(waiting: Mapping[str, set[str]]) -> tuple[str, ...]:
    return tuple(name for name, upstreams in waiting.items() if not upstreams & waiting.keys())


def faults(table: Sequence[Row] = TABLE, callers: Mapping[str, Mapping[str, Iterable[str]]] | None = None) -> list[str]:
    """Everything that is wrong with a table, a line each.

    Args:
        table: its rows.
        callers: whom the contracts of each service let call, by service and contract (`mesh.contracts` reads them).
    """
    names = [entry.name for entry in table]
    found = [f"{name}: there are {count} rows of this name" for name, count in Counter(names).items() if count > 1]
    if (edges := sum(isinstance(entry, Edge) for entry in table)) != 1:
        found.append(f"there are {edges} edges; one row has to be")
    for entry in table:
        of_row = [*_name_faults(entry), *_upstream_faults(entry, names)]
        if isinstance(entry, Service):
            of_row += [*_cell_faults(entry), *_valkey_faults(entry), *_caller_faults(entry, names, (callers or {}))]
            of_row += _event_faults(entry, table)
        else:
            of_row += _edge_faults(entry, table)
        found += [f"{entry.name}: {fault}" for fault in of_row]
    found += _port_faults(table)
    found += _shared(table, "database", lambda service: [service.database.name] if service.database else [])
    found += _shared(table, "database role", lambda service: [service.database.role] if service.database else [])
    found += _shared(table, "contract", lambda service: service.contracts)
    found += _shared(table, "event package", lambda service: service.publishes)
    found += _shared(table, "key pattern", lambda service: service.valkey.keys if service.valkey else ())
    last = levels(table)[-1:]
    if last and any(set(entry.upstreams) & set(last[0]) for entry in table if entry.name in last[0]):
        found.append(f"these call each other in a circle: {', '.join(last[0])}")
    return found


def _listener(name: str, listener: str, number: int) -> str:
    return f"{name}{listener}" if number == 1 else f"{name}-{number}{listener}"


def _name_faults(entry: Row) -> list[str]:
    found = []
    if not _NAME.fullmatch(entry.name):
        found.append("a name is small letters, digits and underscores, and begins with a letter")
    if entry.name in _TAKEN or entry.name in VALKEY_SERVERS:
        found.append("something else has this name")
    if keyword.iskeyword(entry.name) or entry.name in getattr(sys, "stdlib_module_names", ()):
        found.append("Python has a word or a module of this name, so no package can be imported by it")
    return found


def _upstream_faults(entry: Row, names: Sequence[str]) -> list[str]:
    found = [f"its upstream {name} is no row" for name in entry.upstreams if name not in names]
    found += [f"its upstream {name} is named twice" for name, n in Counter(entry.upstreams).items() if n > 1]
    return found


def _edge_faults(edge: Edge, table: Sequence[Row]) -> list[str]:
    grpc = {entry.name: entry.serves_grpc for entry in table if isinstance(entry, Service)}
    found = []
    if grpc.get(edge.api, False):
        found.append(f"its api is {edge.api}, which serves no OpenAPI document")
    if not grpc.get(edge.limiter, True):
        found.append(f"its limiter is {edge.limiter}, which serves no protobuf file")
    return found


def _cell_faults(service: Service) -> list[str]:
    found = []
    documents = [contract for contract in service.contracts if not contract.endswith(".proto")]
    if not service.contracts:
        found.append("it serves no contract")
    if documents and len(service.contracts) > 1:
        found.append("it serves protobuf files, or one OpenAPI document")
    if service.replicas < 1:
        found.append(f"it cannot run as {service.replicas} processes")
    if service.tokens not in _TOKENS:
        found.append(f"tokens is one of {_TOKENS}, and not {service.tokens!r}")
    if service.database is not None:
        for what, name in (("database", service.database.name), ("role", service.database.role)):
            if not _NAME.fullmatch(name):
                found.append(f"the name {name!r} of its {what} would have to be quoted")
    found += [f"the secret {name!r} cannot be a variable" for name in service.secrets if not _NAME.fullmatch(name)]
    return found


def _valkey_faults(service: Service) -> list[str]:
    valkey, found = service.valkey, []
    if valkey is None:
        return []
    if valkey.server not in VALKEY_SERVERS:
        found.append(f"there is no Valkey server {valkey.server!r}; there are: {', '.join(VALKEY_SERVERS)}")
    if not valkey.keys and not valkey.reads:
        found.append("it may use Valkey, and no key there")
    if not valkey.commands:
        found.append("it may use Valkey, and no command there")
    found += [
        f"the key pattern {pattern!r} is not a prefix of its own, like orders:*"
        for pattern in (*valkey.keys, *valkey.reads)
        if not re.fullmatch(r"[a-z][a-z0-9_]*:\*", pattern)
    ]
    found += [
        f"the Valkey command {command!r} is none"
        for command in valkey.commands
        if not re.fullmatch(r"[a-z|]+", command)
    ]
    found += [
        f"{pattern} outlasts restores, and is none of its own key patterns"
        for pattern in valkey.outlast_restores
        if pattern not in valkey.keys
    ]
    return found


def _event_faults(service: Service, table: Sequence[Row]) -> list[str]:
    published = {package for entry in table if isinstance(entry, Service) for package in entry.publishes}
    found = [
        f"it publishes {package!r}, which is no protobuf package with a version, like order.v1"
        for package in service.publishes
        if not _PACKAGE.fullmatch(package)
    ]
    for event in service.consumes:
        if not _EVENT.fullmatch(event):
            found.append(f"it consumes {event!r}, which is no full name of a message, like order.v1.OrderPlaced")
        elif event.rpartition(".")[0] not in published:
            found.append(f"it consumes {event}, which nobody publishes")
    found += [f"it consumes {event} twice" for event, count in Counter(service.consumes).items() if count > 1]
    if service.consumes and service.database is None:
        # Where else would it note, together with what it does, that it has done it?
        found.append("it consumes events, and has no database")
    return found


def _caller_faults(
    service: Service, names: Sequence[str], callers: Mapping[str, Mapping[str, Iterable[str]]]
) -> list[str]:
    return [
        f"{contract} lets {caller} call, which is no row"
        for contract, named in callers.get(service.name, {}).items()
        for caller in named
        if caller not in names and caller != OPERATORS
    ] + [
        f"{contract} names nobody who may call"
        for contract, named in callers.get(service.name, {}).items()
        if not list(named)
    ]


def _port_faults(table: Sequence[Row]) -> list[str]:
    last = FIRST_PORT + PORTS_EACH - 1
    users: dict[int, list[str]] = {port: [listener] for listener, port in OTHER_PORTS.items()}
    for entry in table:
        for port, listener in entry.ports.items():
            users.setdefault(port, []).append(listener)
    found = [f"port {port} is of {' and '.join(listeners)}" for port, listeners in users.items() if len(listeners) > 1]
    found += [
        f"port {port} of {listeners[0]} is not one from {FIRST_PORT} to {last}"
        for port, listeners in users.items()
        if not FIRST_PORT <= port <= last
    ]
    return found


def _shared(table: Sequence[Row], what: str, of: Callable[[Service], Iterable[str]]) -> list[str]:
    """What two services have that is to be one's alone."""
    users: dict[str, list[str]] = {}
    for entry in table:
        if isinstance(entry, Service):
            for name in of(entry):
                users.setdefault(name, []).append(entry.name)
    return [f"{what} {name} is of {' and '.join(owners)}" for name, owners in users.items() if len(owners) > 1]
