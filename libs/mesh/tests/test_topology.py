from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mesh import topology
from mesh.topology import CACHE, EDGE, TABLE, Database, Edge, Row, Service, Valkey, faults, levels

SOURCE = Path(topology.__file__)


def service(name: str, **cells: object) -> Service:
    made = Service(name, port=8131, ops_port=8081, contracts=(f"proto/{name}/v1/{name}.proto",))
    return replace(made, **cells)  # type: ignore[arg-type]


def row(name: str) -> Service:
    found = topology.row(name)
    assert isinstance(found, Service)
    return found


def changed(name: str, **cells: object) -> tuple[Row, ...]:
    return tuple(replace(r, **cells) if r.name == name else r for r in TABLE)  # type: ignore[arg-type]


def test_nothing_is_wrong_with_the_table() -> None:
    assert faults() == []
    assert faults((*TABLE, service("stock_alerts", database=Database("stock_alertsdb", "stock_alerts_service")))) == []


def test_it_is_read_before_anything_is_installed() -> None:
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 9))
    program = "import sys; sys.path.insert(0, sys.argv[1]); from mesh.topology import SERVICES; print(len(SERVICES))"
    # -I -S: neither this environment's packages nor the repository.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(SOURCE.parent.parent)],
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.split() == [str(len(topology.SERVICES))]


def test_a_service_has_one_name() -> None:
    found = service("stock_alerts")
    assert (found.folder, found.package, found.distribution) == (
        "services/stock_alerts",
        "stock_alerts",
        "backend-stock_alerts",
    )


def test_replicas_have_the_ports_after_the_first() -> None:
    assert service("stock", replicas=2).ports == {
        8131: "stock",
        8132: "stock-2",
        8081: "stock_ops",
        8082: "stock-2_ops",
    }


def test_who_is_called_starts_before_who_calls() -> None:
    assert levels() == (("limiter", "user", "order"), ("notification",), ("bff",), ("edge",))
    last_first = levels(tuple(reversed(TABLE)))
    assert [set(level) for level in last_first] == [set(level) for level in levels()]


ONE_FAULT: dict[str, tuple[tuple[Row, ...], str]] = {
    "two rows of one name": ((*TABLE, service("user")), "user: there are 2 rows of this name"),
    "no edge": (TABLE[:-1], "there are 0 edges; one row has to be"),
    "two edges": ((*TABLE, replace(EDGE, name="other", port=8090, tls_port=8089, ops_port=8088)), "there are 2 edges"),
    "a dash": ((*TABLE, service("stock-alerts")), "stock-alerts: a name is small letters"),
    "the operators' name": ((*TABLE, service("ops")), "ops: something else has this name"),
    "a server's name": ((*TABLE, service("valkey")), "valkey: something else has this name"),
    "a keyword": ((*TABLE, service("import")), "import: Python has a word"),
    "a module's name": ((*TABLE, service("calendar")), "calendar: Python has a word"),
    "a port twice": ((*TABLE, service("stock", port=8091)), "port 8091 is of limiter and stock"),
    "a replica's port twice": ((*TABLE, service("stock", port=8113)), "port 8113 is of user-3 and stock"),
    "a port of another stack": ((*TABLE, service("stock", port=8180)), "port 8180 of stock is not one from 8080 to 8179"),
    "an unknown upstream": (changed("bff", upstreams=("user", "orders")), "bff: its upstream orders is no row"),
    "an upstream twice": (changed("bff", upstreams=("user", "user")), "bff: its upstream user is named twice"),
    "an edge without an API": (
        tuple(replace(entry, api="user") if isinstance(entry, Edge) else entry for entry in TABLE),
        "edge: its api is user, which serves no OpenAPI document",
    ),
    "an edge without a limiter": (
        tuple(replace(entry, api="order", limiter="bff") if isinstance(entry, Edge) else entry for entry in TABLE),
        "edge: its limiter is bff, which serves no protobuf file",
    ),
    "others' keys that outlast restores": (
        changed("order", valkey=Valkey(CACHE, ("get",), ("order:*",), outlast_restores=("orders:*",))),
        "order: orders:* outlasts restores",
    ),
    "a circle": (changed("order", upstreams=("bff",)), "these call each other in a circle: order, bff, edge"),
    "itself": (changed("order", upstreams=("order",)), "these call each other in a circle: order, bff, edge"),
    "no contract": (changed("order", contracts=()), "order: it serves no contract"),
    "both kinds": (changed("bff", contracts=("a.yaml", "b.proto")), "bff: it serves protobuf files, or one OpenAPI"),
    "another's contract": (changed("order", contracts=row("user").contracts), "contract proto/user/v1/user.proto is of"),
    "no process": (changed("order", replicas=0), "order: it cannot run as 0 processes"),
    "tokens": (changed("order", tokens="yes"), "order: tokens is one of"),
    "another's database": (changed("order", database=Database("userdb", "order_service")), "database userdb is of"),
    "another's role": (changed("order", database=Database("orderdb", "user_service")), "database role user_service is"),
    "quotes": (changed("order", database=Database("Order", "order_service")), "order: the name 'Order' of its database"),
    "a secret": (changed("order", secrets=("CURSOR",)), "order: the secret 'CURSOR' cannot be a variable"),
    "a server": (changed("order", valkey=Valkey("redis", ("get",), ("order:*",))), "order: there is no Valkey server"),
    "no key": (changed("order", valkey=Valkey(CACHE, ("get",))), "order: it may use Valkey, and no key there"),
    "no command": (changed("order", valkey=Valkey(CACHE, (), ("order:*",))), "order: it may use Valkey, and no command"),
    "every key": (changed("order", valkey=Valkey(CACHE, ("get",), ("*",))), "order: the key pattern '*' is not a prefix"),
    "a rule as command": (changed("order", valkey=Valkey(CACHE, ("+@all",), ("order:*",))), "order: the Valkey command"),
    "another's keys": (changed("order", valkey=Valkey(CACHE, ("get",), ("limit:*",))), "key pattern limit:* is of"),
    "an unversioned package": (changed("order", publishes=("order",)), "order: it publishes 'order', which is no"),
    "another's events": (changed("order", publishes=("user.v1",)), "event package user.v1 is of user and order"),
    "no event": (changed("user", consumes=("order.v1",)), "user: it consumes 'order.v1', which is no"),
    "nobody's event": (changed("user", consumes=("shop.v1.Opened",)), "user: it consumes shop.v1.Opened, which nobody"),
    "an event twice": (changed("user", consumes=("order.v1.OrderPlaced",) * 2), "user: it consumes order.v1.OrderPlaced twice"),
    "nowhere to note it": (changed("bff", consumes=("order.v1.OrderPlaced",)), "bff: it consumes events, and has no database"),
    "the broker's port": (changed("limiter", port=8095), "port 8095 is of nats and limiter"),
    "the mailbox's port": (changed("limiter", port=8097), "port 8097 is of mailbox and limiter"),
    "the mailbox's name": ((*TABLE, service("mailbox")), "mailbox: something else has this name"),
    "the broker's name": ((*TABLE, service("nats")), "nats: something else has this name"),
}  # fmt: skip


@pytest.mark.parametrize("what", ONE_FAULT)
def test_each_fault_is_named(what: str) -> None:
    table, expected = ONE_FAULT[what]
    assert any(fault.startswith(expected) for fault in faults(table)), faults(table)


def test_all_faults_are_named_at_once() -> None:
    table = (
        *changed("bff", upstreams=("user", "orders"), tokens="yes"),
        service("Stock", port=8091, replicas=0, contracts=()),
        service("calendar", port=8111),
    )
    found = "\n".join(faults(table))
    for part in (
        "bff: its upstream orders",
        "bff: tokens",
        "Stock: a name",
        "Stock: it serves",
        "calendar: Python",
        "8111",
    ):
        assert part in found


def test_a_contract_that_lets_nobody_call_or_nobody_we_know_is_a_fault() -> None:
    assert faults(callers={"order": {"a.proto": ["bff", "ops"]}}) == []
    assert faults(callers={"order": {"a.proto": ["shop"], "b.proto": []}}) == [
        "order: a.proto lets shop call, which is no row",
        "order: b.proto names nobody who may call",
    ]
