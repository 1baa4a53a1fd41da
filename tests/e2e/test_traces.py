"""One request followed from the edge to the SQL statement, by its id; and that clients have no say in what is traced."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import httpx
import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1.client import BackendClient
from devstack.console import spans, tree

from conftest import People, Platform, backend, new_key, order_of

# What Envoy says besides, by names that it had before there were conventions; no setting leaves them out.
ENVOYS_OWN = {
    "node_id", "zone", "guid:x-request-id", "http.url", "http.method", "downstream_cluster", "user_agent", "http.protocol",
    "peer.address", "request_size", "response_size", "component", "upstream_cluster", "upstream_cluster.name",
    "http.status_code", "response_flags", "grpc.status_code", "grpc.message", "grpc.path", "grpc.authority",
    "grpc.content_type", "grpc.timeout", "upstream_address", "ratelimit_status", "error", "canceled",
}  # fmt: skip
# What a span of each kind has to say (semantic conventions: HTTP, RPC, database and messaging spans), and what it may.
HTTP = {"http.request.method", "http.route", "http.response.status_code", "url.scheme"}
RPC = {"rpc.system.name", "rpc.method", "rpc.response.status_code"}
SQL = {"db.system.name", "db.namespace", "db.query.text", "db.query.summary"}
VALKEY = {"db.system.name", "db.operation.name"}
MESSAGING = {
    "messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name",
    "messaging.message.id",
}  # fmt: skip
ALLOWED = {
    "url.path",
    "http.request.header.x-request-id",
    "rpc.request.metadata.x-request-id",
    "db.operation.name",
}


def trace(platform: Platform, request_id: str, *options: str) -> dict[str, Any]:
    """What `backend trace` says."""
    done = backend("trace", request_id, "--json", "--data-dir", str(platform.layout.data_dir), *options)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def complete(platform: Platform, request_id: str, *services: str) -> dict[str, Any]:
    """The same, once all of these have sent their spans."""
    async with asyncio.timeout(20):
        while True:
            found = await asyncio.to_thread(trace, platform, request_id)
            if {span["service"] for span in found["spans"]} >= set(services):
                return found


def branches(found: dict[str, Any]) -> list[tuple[int, str, str]]:
    return [(span["depth"], span["service"], span["name"]) for span in found["spans"]]


async def test_one_order_is_one_trace_from_the_edge_to_its_sql(people: People) -> None:
    client, _ = await people.newcomer()
    product = await people.product()
    people.http.headers.update(people.platform.traced)
    placed = await client.create_order(order_of((product, 2)), idempotency_key=new_key())
    found = await complete(people.platform, placed.headers["x-request-id"], "edge", "bff", "order")
    names = branches(found)
    path = [
        (0, "edge", "POST /v1/orders"), (1, "bff", "POST /v1/orders"), (2, "bff", "order.v1.OrderService/CreateOrder"),
        (3, "order", "order.v1.OrderService/CreateOrder"), (4, "order", "transaction"), (5, "order", "InsertOrder"),
    ]  # fmt: skip
    assert [branch for branch in names if branch in path] == path
    assert (2, "bff", "MGET") in names
    known = {span["span_id"]: span for span in found["spans"]}
    for span in found["spans"]:
        parent = known.get(span["parent_id"])
        assert span["trace_id"] == found["trace_id"]
        assert parent is None or parent["began"] <= span["began"] + 10**6
        check_attributes(span)
    assert found["sampled"]
    assert {event["process"] for event in found["log"]} >= {"edge", "bff", "order"}


def check_attributes(span: dict[str, Any]) -> None:
    """By the conventions of its kind: nothing that has to be there is missing, nothing else is there."""
    names = set(span["attributes"])
    if span["service"] == "edge":
        names -= ENVOYS_OWN
    if "grpc" in span["attributes"].get("component", "") or span["name"].startswith("async "):
        # A call of Envoy's own, to the limiter: it says nothing in the names of today.
        assert names <= HTTP | ALLOWED, span
    elif span["service"] == "edge" or span["name"].startswith(("GET /", "POST /")):
        assert names >= HTTP, span
        assert names <= HTTP | ALLOWED, span
        assert span["name"] == f"{span['attributes']['http.request.method']} {span['attributes']['http.route']}"
        assert span["kind"] == "server"
    elif span["name"].startswith("send mail "):
        assert names - ALLOWED == {"network.protocol.name", "backend.mail.kind", "messaging.message.id"}, span
        assert span["kind"] == "producer"
    elif span["kind"] == "consumer":
        assert names - ALLOWED == MESSAGING | {"messaging.consumer.group.name"}, span
        assert span["name"] == f"process {span['attributes']['messaging.destination.name']}"
    elif span["kind"] == "producer":
        assert MESSAGING <= names <= MESSAGING | ALLOWED, span
        assert span["name"] == f"publish {span['attributes']['messaging.destination.name']}"
    elif "/" in span["name"]:
        needed = RPC | ({"server.address"} if span["kind"] == "client" else set())
        assert needed <= names <= needed | ALLOWED, span
        assert span["name"] == span["attributes"]["rpc.method"]
    elif span["kind"] == "internal":
        assert names == {"db.system.name", "db.namespace"}, span
    elif span["attributes"]["db.system.name"] == "postgresql":
        assert SQL <= names <= SQL | ALLOWED, span
        assert span["name"] == span["attributes"]["db.query.summary"]
    else:
        assert names == VALKEY, span


async def test_from_the_request_id_of_an_error_to_the_sql_statement_that_failed(people: People) -> None:
    """Also when nobody had asked for a trace: most requests are not sampled, and a failure is kept all the same."""
    client, _ = await people.newcomer()
    product = await people.product()
    me = (await client.get_me()).data
    database = await people.platform.database("orderdb")
    broken = f"broken_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE FUNCTION {broken}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'of %', NEW.user_id; END $$"
    )
    await database.execute(
        f"CREATE TRIGGER {broken} BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.user_id = '{me.id}') "
        f"EXECUTE FUNCTION {broken}()"
    )
    try:
        # Without the check that every answer is one of the contract: a database that is broken is in none.
        async with httpx.AsyncClient(base_url=people.platform.url) as bare:
            client.http = bare
            with pytest.raises(ApiError) as caught:
                await client.create_order(order_of((product, 1)), idempotency_key=new_key())
    finally:
        await database.execute(f"DROP TRIGGER {broken} ON orders; DROP FUNCTION {broken}()")
        await database.close()
    assert caught.value.problem is not None
    request_id = caught.value.problem.request_id
    assert (caught.value.status, len(request_id)) == (500, 36)
    found = await complete(people.platform, request_id, "bff", "order")
    failed = [span for span in found["spans"] if span["is_error"]]
    statement = failed[-1]
    assert (statement["service"], statement["name"]) == ("order", "InsertOrder")
    assert "INSERT INTO orders" in statement["attributes"]["db.query.text"]
    assert statement["attributes"]["db.response.status_code"] == "P0001"
    assert statement["attributes"]["error.type"] == "RaiseError"
    assert str(me.id) not in json.dumps(found["spans"])
    # The whole way to it failed, whoever looks from above.
    assert [span["name"] for span in failed if span["service"] == "bff"] == [
        "POST /v1/orders", "order.v1.OrderService/CreateOrder",
    ]  # fmt: skip
    assert any("RaiseError" in str(event.get("exception", "")) for event in found["log"])
    shown = backend("trace", request_id, "--data-dir", str(people.platform.layout.data_dir)).stdout
    assert "InsertOrder" in shown
    assert "INSERT INTO orders" in shown


async def test_clients_do_not_choose_what_is_traced_nor_whose_trace_it_is(people: People) -> None:
    chosen = [secrets.token_hex(16) for _ in range(60)]
    answers = [
        await people.http.get(
            f"/v1/products?limit=1&n={number}",
            headers={
                "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01", "tracestate": f"a={trace_id}",
                "baggage": f"trace={trace_id}", "x-envoy-force-trace": "true", "x-client-trace-id": trace_id,
                f"x-trace-{trace_id}": f"00-{trace_id}-{secrets.token_hex(8)}-01",
            },
        )
        for number, trace_id in enumerate(chosen)
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} == {200}
    await asyncio.sleep(1.5)
    where = people.platform.layout.spans
    assert not [trace_id for trace_id in chosen if spans.of_request(where, trace_id).spans]
    ids = [answer.headers["x-request-id"] for answer in answers]
    sampled = [request_id for request_id in ids if spans.of_request(where, request_id).spans]
    # Of sixty, a tenth: thirty would be by chance once in 10^14.
    assert len(sampled) < 30


async def test_a_request_that_is_not_traced_says_so_and_shows_its_log(people: People) -> None:
    for _ in range(20):
        answer = await people.http.get("/v1/products?limit=1")
        found = await asyncio.to_thread(trace, people.platform, answer.headers["x-request-id"])
        if not found["spans"]:
            break
    assert (found["trace_id"], found["sampled"]) == (None, False)
    assert {event["process"] for event in found["log"]} >= {"edge", "bff", "order"}
    where = ("--data-dir", str(people.platform.layout.data_dir))
    shown = backend("trace", answer.headers["x-request-id"], *where).stdout
    assert "It was not sampled (10% of all are" in shown
    unknown = backend("trace", "nobody-knows-this", *where, check=False)
    assert (unknown.returncode, unknown.stdout) == (5, "")
    assert "nothing is known of 'nobody-knows-this'" in unknown.stderr
    ill_formed = backend("trace", "no.id", *where, check=False)
    assert (ill_formed.returncode, ill_formed.stdout) == (2, "")
    assert "'no.id' is no id of a request" in ill_formed.stderr


async def test_a_header_of_the_operators_has_one_request_traced(people: People) -> None:
    line = backend("trace", "--header", "--data-dir", str(people.platform.layout.data_dir)).stdout
    name, _, value = line.strip().partition(": ")
    answer = await BackendClient(people.http).list_products(limit=1)
    traced = await people.http.get("/v1/products?limit=1", headers={name: value})
    assert answer.status == traced.status_code == 200
    found = await complete(people.platform, traced.headers["x-request-id"], "edge", "bff", "order")
    assert found["trace_id"] == value.split("-")[1]
    assert tree.nodes([]) == []
