"""What the page shows of the whole stack: how each process is, what goes from one to another, how each operation does.

Everything is of one window, the last so many seconds, and of all replicas together; what fills up is of each process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from chassis.version import __version__
from mesh.topology import (
    BROKER,
    CONSOLE,
    EDGE,
    MAILBOX,
    TABLE,
    VALKEY_SERVERS,
    Service,
    levels,
    service_of,
)

from devstack.console import exposition, history, works
from devstack.console.alerts import Active
from devstack.console.history import History, Key, Slot, Work
from devstack.console.rounds import Round
from devstack.console.works import CLIENTS, POSTGRES, REQUESTS
from devstack.layout import Layout
from devstack.logs.selection import JWKS

WINDOWS = (60, 300, 900)
# What a row has of the whole time that is kept, to be drawn small.
_SPARKS = 30
_KINDS = ("http", "rpc", "database")
# Parts of others: a statement is within a connection or a transaction.
_MOST_OPERATIONS = 200
# Tells of the kinds of what is drawn.
CLIENT, SERVICE, STORE = "client", "service", "store"
_BREAKER = "envoy_cluster_circuit_breakers_default_"
_BREAKERS = {f"{_BREAKER}{what}_open": words for what, words in {
    "cx": "connections", "rq": "requests", "rq_pending": "waiting requests",
}.items()}  # fmt: skip
_POOL, _POOL_MOST = "backend_database_users", "backend_database_connections_max"
_SLOTS, _RUNNING, _WAITING = (f"backend_admission_{what}" for what in ("slots", "running", "waiting"))
_CONNECTED, _COMMANDS = "backend_valkey_connected", "backend_valkey_waiting"
_WORKER, _WORKER_RESTARTS = "backend_worker_running", "backend_worker_restarts_total"
_LAG, _MEMORY, _ENVOYS_MEMORY = (
    "backend_event_loop_lag_seconds", "process_resident_memory_bytes", "envoy_server_memory_allocated",
)  # fmt: skip
_HEALTHY, _MEMBERS, _EJECTED = (
    "envoy_cluster_membership_healthy", "envoy_cluster_membership_total",
    "envoy_cluster_outlier_detection_ejections_active",
)  # fmt: skip
READ = frozenset({
    *_BREAKERS, _POOL, _POOL_MOST, _SLOTS, _RUNNING, _WAITING, _CONNECTED, _COMMANDS, _WORKER, _WORKER_RESTARTS, _LAG,
    _MEMORY, _ENVOYS_MEMORY, _HEALTHY, _MEMBERS, _EJECTED,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `found` is what its probes say fails or works less well, by check."""

    name: str
    state: str
    restarts: int
    pid: int | None
    found: Mapping[str, str]
    metrics: str


@dataclass(frozen=True, slots=True)
class Node:
    """What is drawn as one: a service with its replicas, a server, or whoever calls from outside."""

    name: str
    kind: str
    # From where requests come to where data are, 0 first.
    column: int
    what: str
    processes: Sequence[Process] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """Who calls whom, and how that went within the window."""

    caller: str
    callee: str
    count: float
    refused: float
    failed: float


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work of one name within the window; times in seconds, None without any.

    Attributes:
        title: what a reader knows it by.
        sparks: its rate a second over the whole time that is kept, the oldest first.
    """

    kind: str
    key: str
    service: str
    title: str
    count: float
    refused: float
    failed: float
    p50: float | None
    p95: float | None
    p99: float | None
    sparks: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Meter:
    """How much there is of something, and how much there may be; no `most` where there is no bound."""

    name: str
    value: float
    most: float | None = None
    waiting: float = 0
    refused: float = 0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker of a process."""

    name: str
    running: bool
    restarts: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Whom a process calls, and what its Envoy thinks of them: `open` names the circuit breakers that are open."""

    name: str
    healthy: float
    members: float
    ejected: float
    open: Sequence[str]


@dataclass(frozen=True, slots=True)
class Inside:
    """What fills up in a process: cpu in cores, memory in bytes, lag in seconds; None where it does not tell."""

    process: str
    cpu: float | None
    memory: float | None
    lag: float | None
    pool: Meter | None
    valkey: Meter | None
    connected: bool | None
    lanes: Sequence[Meter]
    workers: Sequence[Worker]
    clusters: Sequence[Cluster]
    lost_spans: float


@dataclass(frozen=True, slots=True)
class Account:
    """One of the demo accounts."""

    role: str
    email: str
    password: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it."""

    at: float
    since: float
    version: str
    window: int
    # Of which time there is anything: less than the window soon after a start.
    seconds: float
    every_seconds: float
    ready: bool
    public: str
    public_tls: str
    trace_ratio: float
    traced: bool
    nodes: Sequence[Node]
    links: Sequence[Link]
    total: Row
    rows: Sequence[Row]
    inside: Sequence[Inside]
    alerts: Sequence[Active]
    accounts: Sequence[Account]
    demo_loading: bool


@dataclass(frozen=True, slots=True)
class Point:
    """One kind of work in one slot: its end in Unix seconds, rates a second, times in seconds."""

    at: float
    ok: float
    refused: float
    failed: float
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Course:
    """How one kind of work went over the whole time that is kept."""

    kind: str
    key: str
    title: str
    points: Sequence[Point] = field(default_factory=tuple)


def overview(found: Round, past: History, alerts: Sequence[Active], layout: Layout, window: int) -> Overview:
    """What is so now.

    Args:
        found: the last round.
        past: what was counted.
        alerts: those that are active.
        layout: where the stack is.
        window: of how many seconds.
    """
    stack = found.stack
    slots = past.slots(found.at - window)
    works_done = history.total(slots)
    span = history.seconds(slots)
    options = stack.options if stack is not None else {}
    return Overview(
        at=found.at,
        since=stack.supervisor_created if stack is not None else found.at,
        version=__version__,
        window=window,
        seconds=span,
        every_seconds=history.KEPT_SECONDS,
        ready=stack is not None and stack.ready and all(state == "ready" for state in found.states.values()),
        public=layout.endpoints(())["public"],
        public_tls=layout.endpoints(())["public_tls"],
        trace_ratio=float(str(options.get("trace_ratio", 0.1))),
        traced="tracing" not in str(options.get("without", "")) and not options.get("otlp_endpoint"),
        nodes=_nodes(found, layout),
        links=[_link(key, works_done.get(works.link(*key), Work())) for key in _arrows()],
        total=_row(REQUESTS, works_done.get(REQUESTS, Work())),
        rows=_rows(works_done, past.slots(0.0)),
        inside=[_inside(name, found.numbers.get(name), works_done, span) for name in _hosted(found)],
        alerts=alerts,
        accounts=[
            Account(role, account["email"], account["password"])
            for role, account in (stack.demo if stack is not None else {}).items()
        ],
        demo_loading=stack is not None and stack.demo_loading,
    )


def course(past: History, kind: str, key: str) -> Course:
    """How one kind of work went; of one that nobody knows, nothing ever happened."""
    return Course(kind, key, title(kind, key), [_point(slot, (kind, key)) for slot in past.slots(0.0)])


def title(kind: str, key: str) -> str:
    """What a reader knows a kind of work by: an operation's method and path, a method without its package."""
    if (kind, key) == REQUESTS:
        return "All requests"
    name = key.partition(" ")[2]
    if kind == "http":
        return _paths().get(name, name)
    return name.rpartition("/")[0].rpartition(".")[2] + "/" + name.rpartition("/")[2] if kind == "rpc" else name


@cache
def _paths() -> Mapping[str, str]:
    # What it imports is asked for only by who looks.
    from contracts.bff.v1.operations import OPERATIONS

    return {operation.id: f"{operation.method} {operation.path}" for operation in OPERATIONS}


def _nodes(found: Round, layout: Layout) -> list[Node]:
    by_service: dict[str, list[Process]] = {}
    for process in found.stack.processes if found.stack is not None else ():
        metrics = ""
        if found.stack is not None and (ops := found.stack.endpoints.get(f"{process.name}_ops")):
            metrics = f"{ops}/metrics"
        told = Process(
            process.name, found.states.get(process.name, process.state), process.restarts, process.pid,
            found.found.get(process.name, {}), metrics,
        )  # fmt: skip
        by_service.setdefault(service_of(process.name), []).append(told)
    columns = {name: number for number, level in enumerate(reversed(levels()), 1) for name in level}
    last = max(columns.values()) + 1
    nodes = [Node(CLIENTS, CLIENT, 0, "browsers, apps")]
    nodes += [
        Node(entry.name, SERVICE, columns[entry.name], _what(entry.name, layout), by_service.get(entry.name, ()))
        for entry in sorted(TABLE, key=lambda entry: columns[entry.name])
    ]
    stores = {
        POSTGRES: _databases(),
        **{server: _keys(server) for server in VALKEY_SERVERS},
        BROKER: "events",
        MAILBOX: "mails",
    }
    nodes += [Node(name, STORE, last, what, by_service.get(name, ())) for name, what in stores.items()]
    return [*nodes, Node(CONSOLE, CONSOLE, 0, "this page, and spans", by_service.get(CONSOLE, ()))]


def _what(name: str, layout: Layout) -> str:
    if name == EDGE.name:
        return f"Envoy, :{layout.port('public')}"
    return "Python in Envoy"


def _databases() -> str:
    return ", ".join(entry.database.name for entry in TABLE if isinstance(entry, Service) and entry.database)


def _keys(server: str) -> str:
    patterns = [
        pattern
        for entry in TABLE
        if isinstance(entry, Service) and entry.valkey is not None and entry.valkey.server == server
        for pattern in entry.valkey.keys
    ]
    return ", ".join(dict.fromkeys(pattern.removesuffix(":*") for pattern in patterns))


def _arrows() -> list[tuple[str, str]]:
    arrows = [(CLIENTS, EDGE.name)]
    for entry in TABLE:
        arrows += [(entry.name, upstream) for upstream in entry.upstreams]
        if isinstance(entry, Service) and entry.database is not None:
            arrows.append((entry.name, POSTGRES))
        if isinstance(entry, Service) and entry.valkey is not None:
            arrows.append((entry.name, entry.valkey.server))
        if isinstance(entry, Service) and entry.uses_broker:
            arrows.append((entry.name, BROKER))
        if isinstance(entry, Service) and entry.sends_mail:
            arrows.append((entry.name, MAILBOX))
    return arrows


def _link(arrow: tuple[str, str], work: Work) -> Link:
    return Link(*arrow, work.count, work.refused, work.failed)


def _rows(works_done: Mapping[Key, Work], all_slots: list[Slot]) -> list[Row]:
    """Of what was done within the time that is kept, what was done most first."""
    sparks = _sparks(all_slots)
    rows = [
        _row(key, works_done.get(key, Work()), of_key)
        for key, of_key in sparks.items()
        if key[0] in _KINDS and any(of_key)
    ]
    # What the edge asks for itself is no client's request.
    rows = [row for row in rows if row.title != f"GET {JWKS}"]
    return sorted(rows, key=lambda row: (-row.count, row.title))[:_MOST_OPERATIONS]


def _row(key: Key, work: Work, sparks: Sequence[float] = ()) -> Row:
    kind, name = key
    return Row(
        kind, name, name.partition(" ")[0], title(kind, name), work.count, work.refused, work.failed,
        work.quantile(0.5), work.quantile(0.95), work.quantile(0.99), sparks,
    )  # fmt: skip


def _sparks(slots: list[Slot]) -> dict[Key, list[float]]:
    """Rates a second by equal parts of the time that is kept, up to now."""
    found: dict[Key, list[float]] = {}
    if not slots:
        return found
    end, width = slots[-1].end, history.KEPT_SECONDS / _SPARKS
    for slot in slots:
        part = _SPARKS - 1 - int((end - slot.end) / width)
        if part < 0:
            continue
        for key, work in slot.works.items():
            found.setdefault(key, [0.0] * _SPARKS)[part] += work.count / width
    return found


def _point(slot: Slot, key: Key) -> Point:
    work = slot.works.get(key, Work())
    passed = max(slot.end - slot.begin, 0.001)
    return Point(
        slot.end, (work.count - work.refused - work.failed) / passed, work.refused / passed, work.failed / passed,
        work.quantile(0.5), work.quantile(0.95), work.quantile(0.99),
    )  # fmt: skip


def _hosted(found: Round) -> list[str]:
    """The processes that tell of themselves."""
    if found.stack is None:
        return []
    return [process.name for process in found.stack.processes if f"{process.name}_ops" in found.stack.endpoints]


class _Gauges:
    """The numbers of one process by family."""

    def __init__(self, numbers: Mapping[str, float]) -> None:
        self._by_name: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for series, value in numbers.items():
            name = exposition.name(series)
            if name in READ:
                self._by_name.setdefault(name, []).append((exposition.labels(series), value))

    def one(self, name: str) -> float | None:
        """Of a family without labels; of one with several, all of them together."""
        values = [value for _, value in self._by_name.get(name, ())]
        return sum(values) if values else None

    def by(self, name: str, label: str) -> dict[str, float]:
        """By the value of a label."""
        return {labels.get(label, ""): value for labels, value in self._by_name.get(name, ())}


def _inside(name: str, numbers: Mapping[str, float] | None, done: Mapping[Key, Work], span: float) -> Inside:
    gauges = _Gauges(numbers or {})
    cpu = done.get(("cpu", name))
    memory = gauges.one(_MEMORY)
    connected, lost = gauges.one(_CONNECTED), done.get(("lost spans", name))
    return Inside(
        process=name,
        cpu=cpu.count / span if cpu is not None and span else None,
        memory=gauges.one(_ENVOYS_MEMORY) if memory is None else memory,
        lag=gauges.one(_LAG),
        pool=_pool(gauges),
        valkey=None if connected is None else Meter("commands", gauges.one(_COMMANDS) or 0),
        connected=None if connected is None else connected > 0,
        lanes=_lanes(name, gauges, done),
        workers=_workers(gauges),
        clusters=_clusters(gauges),
        lost_spans=lost.count if lost is not None else 0,
    )


def _pool(gauges: _Gauges) -> Meter | None:
    used, most = gauges.one(_POOL), gauges.one(_POOL_MOST)
    if used is None or most is None:
        return None
    return Meter("connections", min(used, most), most, waiting=max(0.0, used - most))


def _lanes(process: str, gauges: _Gauges, done: Mapping[Key, Work]) -> list[Meter]:
    running, waiting = gauges.by(_RUNNING, "class"), gauges.by(_WAITING, "class")
    return [
        Meter(
            lane, running.get(lane, 0), most, waiting.get(lane, 0),
            done.get(("lane", f"{process} {lane}"), Work()).refused,
        )
        for lane, most in gauges.by(_SLOTS, "class").items()
    ]  # fmt: skip


def _workers(gauges: _Gauges) -> list[Worker]:
    restarts = gauges.by(_WORKER_RESTARTS, "worker")
    return [Worker(name, running > 0, restarts.get(name, 0)) for name, running in gauges.by(_WORKER, "worker").items()]


def _clusters(gauges: _Gauges) -> list[Cluster]:
    label = "envoy_cluster_name"
    members, healthy, ejected = (gauges.by(name, label) for name in (_MEMBERS, _HEALTHY, _EJECTED))
    breakers = {words: gauges.by(name, label) for name, words in _BREAKERS.items()}
    ours = _names_of(members)
    return [
        Cluster(
            name, healthy.get(name, 0), members[name], ejected.get(name, 0),
            [words for words, by_cluster in breakers.items() if by_cluster.get(name, 0) > 0],
        )
        for name in ours
    ]  # fmt: skip


def _names_of(clusters: Iterable[str]) -> list[str]:
    """The clusters that are rows of the table: Envoy has others for itself."""
    known = {entry.name for entry in TABLE}
    return [name for name in clusters if name in known]
