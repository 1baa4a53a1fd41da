"""What one client sends, however wrong, is nobody else's trouble. (`tools/fuzz_edge.py` does the same for longer.)"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import inside
import pytest
from contracts.bff.v1.operations import OPERATIONS
from devstack.layout import Layout
from devstack.options import Options
from fuzz.crowd import crowd
from fuzz.mutations import Shot
from fuzz.senders import SENDERS, Target, http1
from fuzz.watch import Reader, metrics, upstream_ends
from fuzz_edge import fuzz

from conftest import People, Platform, client_address, http_client, new_key

# Everything from 127.0.0.1 is one address to the limits, which are not what is tried here.
# Seconds that callers wait for an answer which is slow.
PATIENCE = (0.01, 0.1, 0.4, 9, 9)
WITHOUT_LIMITS = ("address_rate_limits", "global_rate_limits", "local_rate_limits", "connections")


def target(stack: Platform, own: Layout) -> Target:
    return Target(own.port("public"), own.port("public_tls"), stack.layout.certificates / "public" / "ca.crt")


async def ends(stack: Platform, own: Layout) -> list[object]:
    """What `watch.upstream_ends` counts behind an edge and behind the BFF."""
    edge, bff = f"http://127.0.0.1:{own.port('edge_ops')}", stack.status["endpoints"]["bff_ops"]
    return [await upstream_ends(edge, "bff"), *[await upstream_ends(bff, name) for name in ("user", "order")]]


@asynccontextmanager
async def nobody_else_notices(stack: Platform, own: Layout, people: People) -> AsyncIterator[None]:
    """A reader sees 200 and nothing else, and the connections behind the edge are the same ones before and after."""
    client, _ = await people.newcomer()
    async with http_client(f"http://127.0.0.1:{own.port('public')}") as http:
        headers = {"authorization": f"Bearer {client.access_token}"}
        # Every worker has its connections now.
        await asyncio.gather(*(http.get("/v1/orders", headers=headers) for _ in range(20)))
        before = await ends(stack, own)
        async with Reader(lambda: http.get("/v1/orders", headers=headers)).running() as seen:
            yield
        assert set(seen) == {"200"}, seen
    assert await ends(stack, own) == before


async def test_the_fuzzer_hurts_nobody_else(people: People, stack: Platform) -> None:
    # With the limits of one caller in place: a flood is theirs to hold (127.0.0.1 sends more than its share here).
    with inside.another(stack, "edge", Options(without=("global_rate_limits", "connections"))) as own:
        async with nobody_else_notices(stack, own, people):
            answers = await fuzz(target(stack, own), 6, seed=8, workers=2)
    for protocol, seen in answers.items():
        assert not any(status and status >= 500 for status in seen), (protocol, seen)
        assert sum(seen.values()) >= 20, (protocol, seen)


async def test_requests_given_up_hold_nothing(people: People, stack: Platform) -> None:
    """Reads that are reset as soon as they are sent, or while somebody works on them, each address within its limits."""
    bff = stack.status["endpoints"]["bff_ops"]
    reset = 'envoy_http_downstream_rq_rx_reset{envoy_http_conn_manager_prefix="ingress"}'
    with inside.another(stack, "edge", Options(without=("connections",))) as own:
        before = await metrics(bff)
        for protocols, addresses in ((("resets", "h3 resets"), 1), (("resets",), 5)):
            async with nobody_else_notices(stack, own, people):
                await fuzz(target(stack, own), 2.5, seed=9, protocols=protocols, workers=addresses)
        assert (await metrics(bff))[reset] - before.get(reset, 0) > 200


async def test_what_a_client_causes_counts_against_no_replica(people: People, stack: Platform) -> None:
    """Slow calls that end by their deadline, and such that are given up, at any time: two replicas stay two."""
    client, _ = await people.newcomer()
    product = await people.product()
    orders = [await people.order(client, (product, 1)) for _ in PATIENCE]

    async def ask(patience: float, method: str, path: str, token: str = "") -> int:
        """The status; 0 for who had gone by then: on a connection of its own, which is cut."""
        headers = {"authorization": f"Bearer {client.access_token}", "idempotency-key": new_key()} if token else {}
        async with http_client(f"http://127.0.0.1:{own.port('public')}") as http:
            sent = http.request(method, path, headers=headers, json={"payment_token": token} if token else None)
            try:
                return (await asyncio.wait_for(sent, patience)).status_code
            except TimeoutError:
                return 0

    with inside.another(stack, "edge", Options(without=WITHOUT_LIMITS)) as own:
        async with nobody_else_notices(stack, own, people):
            # The provider does not answer: the Order service gives up by itself.
            paths = [f"/v1/orders/{order.id}/payment" for order in orders]
            paying = [ask(wait, "POST", path, "tok_timeout") for wait, path in zip(PATIENCE, paths, strict=True)]
            assert await asyncio.gather(*paying) == [0, 0, 0, 504, 504]
        before = await ends(stack, own)
        database = await stack.database("orderdb")
        async with database.transaction():
            # The database does not answer: the deadline ends it, which the BFF gave.
            await database.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
            reading = [ask(wait, "GET", f"/v1/products?q={new_key()}") for wait in PATIENCE]
            assert await asyncio.gather(*reading) == [0, 0, 0, 503, 503]
        await database.close()
        assert await ends(stack, own) == before


async def test_trailers_go_no_further(people: People, stack: Platform) -> None:
    """One named `host` is an offence to the codec behind."""
    shot = Shot(method=b"POST", path=b"/v1/auth/refresh", body=b"{}", trailers=((b"host", b"evil.example"),))
    with inside.another(stack, "edge", Options(without=WITHOUT_LIMITS)) as own:
        async with nobody_else_notices(stack, own, people):
            for protocol in ("http/1.1", "h2c", "h2", "h3"):
                statuses = await SENDERS[protocol](target(stack, own), [shot], "127.0.0.1")
                assert set(statuses) <= {400, 401, 415, 422, None}, (protocol, statuses)
    with inside.another(stack, "edge", Options(without=("client_headers", *WITHOUT_LIMITS))) as own:
        assert await SENDERS["h2"](target(stack, own), [shot], "127.0.0.1") == [502]


ODD_HOSTS = (
    b"",
    b"@",
    b"user@x",
    b"user:pw@x",
    b"[::1",
    b"x:abc",
    b"a,b",
    b"%00",
    b"x%41",
    b"*",
    b"(",
    b";",
    b"x@",
    b"!",
)


@pytest.mark.parametrize("address", ["127.0.0.1", "another"])
async def test_an_odd_authority_is_refused_at_the_door(people: People, stack: Platform, address: str) -> None:
    source = client_address() if address == "another" else address
    good = (b"api", b"api:8080", b"127.0.0.1", b"[::1]", b"[::1]:8080", b"API.example.")
    with inside.another(stack, "edge", Options(without=WITHOUT_LIMITS)) as own:
        where = target(stack, own)
        async with nobody_else_notices(stack, own, people):
            for protocol in ("http/1.1", "h2c", "h2"):
                odd = await SENDERS[protocol](where, [Shot(authorities=(host,)) for host in ODD_HOSTS], source)
                # Over HTTP/2 its codec may end the stream without an answer.
                assert set(odd) <= ({400} if protocol == "http/1.1" else {400, None}), (protocol, odd)
                served = await SENDERS[protocol](where, [Shot(authorities=(host,)) for host in good], source)
                assert set(served) == {200}, (protocol, served)
            two = [Shot(authorities=(b"api", b"api")), Shot(authorities=(b"api", b"evil.example"))]
            assert await http1(where, two, source) == [400, 400]


async def test_without_the_rule_an_odd_authority_reaches_the_bff(stack: Platform) -> None:
    with inside.another(stack, "edge", Options(without=("authorities", *WITHOUT_LIMITS))) as own:
        ops = f"http://127.0.0.1:{own.port('edge_ops')}"
        sent = 'envoy_cluster_upstream_rq_total{envoy_cluster_name="bff"}'
        before = (await metrics(ops)).get(sent, 0)
        await http1(target(stack, own), [Shot(authorities=(b"user@x",))], "127.0.0.1")
        assert (await metrics(ops))[sent] > before


@pytest.mark.parametrize("address", ["127.0.0.1", "another"])
async def test_head_is_answered_wherever_get_is_and_never_has_content(
    people: People, stack: Platform, address: str
) -> None:
    """Of every operation and of what is none: a status, GET's headers, and the connection goes on."""
    source = client_address() if address == "another" else address
    paths = [*{operation.path for operation in OPERATIONS}, "/v1/nope", "/v1/%41", "/healthz/ready"]
    client, _ = await people.newcomer()
    with inside.another(stack, "edge", Options(without=WITHOUT_LIMITS)) as own:
        async with nobody_else_notices(stack, own, people):
            reader, writer = await asyncio.open_connection("127.0.0.1", own.port("public"), local_addr=(source, 0))
            token = f"authorization: Bearer {client.access_token}"
            for path in [path.replace("{", "").replace("}", "") for path in paths]:
                heads = []
                for method in ("HEAD", "GET"):
                    writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n{token}\r\n\r\n".encode())
                    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().lower()
                    length = int(head.partition("content-length: ")[2].split("\r\n")[0])
                    if method == "GET":
                        await reader.readexactly(length)
                    lines = {line for line in head.splitlines() if not line.startswith(("ratelimit", "x-request-id"))}
                    heads.append(lines - {line for line in lines if line.startswith(("date", "content-length"))})
                assert heads[0] == heads[1], path
            await inside.close(writer)


STEERING = {
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-max-retries": "1000",
    "x-envoy-retry-on": "5xx",
    "x-envoy-internal": "true",
    "x-envoy-decorator-operation": "x",
    "x-envoy-expected-rq-timeout-ms": "1",
    "x-envoy-downstream-service-cluster": "x",
    "x-envoy-original-path": "/v1/me",
    "x-envoy-original-dst-host": "127.0.0.1:1",
    "x-client-trace-id": "x",
}


async def names_of_statistics(own: Layout) -> set[str]:
    return set(await metrics(f"http://127.0.0.1:{own.port('edge_ops')}"))


@pytest.mark.parametrize("proxies", [(), ("127.0.0.1/32",), ("127.0.0.0/8",)], ids=["no proxy", "it is one", "all are"])
async def test_no_client_steers_envoy(stack: Platform, proxies: tuple[str, ...]) -> None:
    """Whatever address it has, and through a trusted proxy as well: which passes on what its clients send."""
    options = Options(trusted_proxies=proxies, without=(*WITHOUT_LIMITS, "statistics"))
    with inside.another(stack, "edge", options) as own:
        url, marker = f"http://127.0.0.1:{own.port('public')}", f"z{uuid.uuid4().hex}"
        for address in ("127.0.0.1", client_address()):
            async with inside.from_address(address, url) as http:
                for sent in ({}, {"x-forwarded-for": "10.0.0.1"}):
                    headers = {**STEERING, **sent}
                    before = await http.get("/v1/products?limit=1", headers=headers)
                    assert before.status_code == 200, (address, sent)
                    for _ in range(5):
                        odd = {**headers, "x-envoy-upstream-alt-stat-name": marker, "user-agent": marker}
                        assert (await http.get(f"/v1/products?q={marker}", headers=odd)).status_code == 200
                    await http.request(marker, f"/v1/{marker}", headers={"host": f"{marker}.example"})
        assert not any(marker in name.lower() for name in await names_of_statistics(own))


async def test_nothing_that_is_asked_is_a_statistics_name(stack: Platform) -> None:
    """Thousands of methods, hosts, paths and headers that nobody used before: no process knows of one afterwards."""
    marker = f"z{uuid.uuid4().hex[:8]}"
    ops = {name: stack.status["endpoints"][f"{name}_ops"] for name in ("bff", "user", "order", "limiter")}

    async def names() -> dict[str, set[str]]:
        found = {name: set(await metrics(where)) for name, where in ops.items()}
        for name in found.keys() - {"edge"}:
            found[name] |= set(await inside.metrics(ops[name], "/metrics"))
        # A status that has not been before is a new one, of a few hundred that there are, and so is work that the service
        # itself does for the first time: a histogram, whose buckets are one here.
        known = re.compile(r'(code|class|status)="\d*[\dx]+"|le="(\d+\.\d+|\d+|\+Inf)"|_[1-5](xx|\d\d)\b')
        return {name: {known.sub("", one) for one in all_of_it} for name, all_of_it in found.items()}

    def address(random: Random) -> str:
        return "127.0.0.1" if random.random() < 0.5 else f"127.{random.randrange(1, 255)}.0.{random.randrange(1, 255)}"

    with inside.another(stack, "edge", Options(without=(*WITHOUT_LIMITS, "statistics"))) as own:
        ops["edge"] = f"http://127.0.0.1:{own.port('edge_ops')}"
        # Being asked for statistics is one, too.
        await names()
        await crowd(own.port("public"), 1000, 1, address)
        before = await names()
        answers = await crowd(own.port("public"), 3000, 2, address, marker=marker)
        after = await names()
    assert answers.total() == 3000
    assert not any(status is None or status >= 500 for status in answers), answers
    for name, found in after.items():
        assert not any(marker.lower() in statistic.lower() for statistic in found), name
        assert len(found - before[name]) <= 10, (name, sorted(found - before[name])[:20])


async def test_without_the_rule_127_0_0_1_steers_envoy(stack: Platform) -> None:
    assert await _named_by_a_client(stack, "client_headers", "statistics", *WITHOUT_LIMITS)


async def test_an_envoy_keeps_no_statistic_that_a_client_has_named(stack: Platform) -> None:
    """Even where nothing else keeps a client from it."""
    assert not await _named_by_a_client(stack, "client_headers", *WITHOUT_LIMITS)


async def _named_by_a_client(stack: Platform, *without: str) -> list[str]:
    """The statistics of an edge without some policies that have the name that a client has given one."""
    with inside.another(stack, "edge", Options(without=without)) as own:
        name = f"z{uuid.uuid4().hex}"
        async with inside.from_address("127.0.0.1", f"http://127.0.0.1:{own.port('public')}") as http:
            await http.get("/v1/products?limit=1", headers={"x-envoy-upstream-alt-stat-name": name})
        return [statistic for statistic in await names_of_statistics(own) if name in statistic]


async def test_a_request_id_from_outside_is_ours(stack: Platform) -> None:
    well_formed = "01987b0e-5f3c-4c3e-9b1a-3f0d9e6a7b21"
    ids = (well_formed, "evil id", "x", "y" * 65, "a;b" * 5, "é" * 10)
    for proxies in ((), ("127.0.0.1/32",)):
        with inside.another(stack, "edge", Options(trusted_proxies=proxies, without=WITHOUT_LIMITS)) as own:
            for address in ("127.0.0.1", client_address()):
                async with inside.from_address(address, f"http://127.0.0.1:{own.port('public')}") as http:
                    for sent in ids:
                        answer = await http.get("/v1/nope", headers=[(b"x-request-id", sent.encode())])
                        trusted = bool(proxies) and address == "127.0.0.1"
                        kept = answer.headers["x-request-id"] == sent
                        assert kept is (trusted and sent == well_formed), (proxies, address, sent)
