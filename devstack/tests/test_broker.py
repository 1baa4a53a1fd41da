"""The broker of events: who may do what there, and what is left when it is killed or full."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import brokers
import pytest
from chassis.certificate_files import client_context
from chassis.events import limits, nats
from chassis.events.event import Event
from chassis.events.nats import Nats, connection
from chassis.events.publisher import BrokerUnavailable, NotTogether
from chassis.ids import uuid7
from devstack.layout import Layout
from mesh.broker import HEALTH_ANSWER
from mesh.certificates import Certificates
from mesh.topology import BROKER, OPERATORS, SERVICES
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from devstack import broker, health

# The services, of which none listens; and one that does: what nobody wants is not kept.
DEAF = tuple(replace(service, consumes=()) for service in SERVICES)
CONSUMER = replace(SERVICES[0], name="listener", consumes=("order.v1.OrderPlaced",))
WITH_CONSUMER = (*DEAF, CONSUMER)


def event(event_type: str = "order.v1.OrderPlaced", data: bytes = b"") -> Event:
    return Event(
        id=uuid7(),
        source="order",
        type=event_type,
        subject="order/1",
        time=datetime.now(UTC),
        dataschema="order/v1/events.proto",
        traceparent="",
        data=data,
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[brokers.Server]:
    async with brokers.running(tmp_path / "broker", WITH_CONSUMER) as server:
        yield server


@asynccontextmanager
async def operator(server: brokers.Server) -> AsyncIterator[Client]:
    async with connection(server.url, server.certificates_of(OPERATORS), OPERATORS) as client:
        yield client


async def ask(client: Client, what: str, **request: object) -> dict[str, object]:
    answer = await client.request(f"$JS.API.{what}", json.dumps(request).encode(), timeout=20)
    found: dict[str, object] = json.loads(answer.data)
    return found


async def stored(server: brokers.Server) -> int:
    async with operator(server) as client:
        found = await ask(client, "STREAM.INFO.events")
    return int(found["state"]["messages"])  # type: ignore[index]


@pytest.mark.parametrize("name", ["Ada's", 'say "hello"', "back\\slash", "two\nlines", "50% of #1 $HOME", "Größe"])
def test_a_data_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path / name)
    Certificates(layout.pki, layout.certificates).ensure()
    configuration = broker.configure(layout)
    read = subprocess.run(
        [broker.BINARY, "-t", "--config", configuration], capture_output=True, encoding="utf-8", check=False
    )
    assert read.returncode == 0, read.stderr


async def test_whoever_has_the_brokers_certificate_asks_whether_it_works_and_nothing_else(
    server: brokers.Server,
) -> None:
    assert await health.broker_works(server.layout)
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    async with asyncio.timeout(20):
        client = Client()
        own = client_context(server.certificates_of(BROKER))
        await client.connect(server.url, tls=own, tls_handshake_first=True, error_cb=note)
        for what in ("CONNZ", "STACKSZ", "JSZ", "VARZ"):
            await client.publish(f"$SYS.REQ.SERVER.PING.{what}", reply=HEALTH_ANSWER)
        await client.publish("events.order.v1.OrderPlaced", b"")
        await client.subscribe("$SYS.>")
        while len(refused) < 6:
            await asyncio.sleep(0.02)
        await client.close()
    assert all("permissions violation" in why for why in refused)


async def test_a_service_publishes_its_own_events_and_nobody_elses(server: brokers.Server) -> None:
    async with server.client("order", timeout=1) as order:
        await order.publish(event())
        with pytest.raises(BrokerUnavailable):
            await order.publish(event("user.v1.UserRegistered"))
        await order.publish(event())
    assert await stored(server) == 2


async def test_a_service_neither_reads_what_is_for_others_nor_changes_what_there_is(server: brokers.Server) -> None:
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    client = Client()
    await client.connect(
        server.url,
        inbox_prefix="_INBOX.order",
        tls=client_context(server.certificates_of("order")),
        tls_handshake_first=True,
        error_cb=note,
    )
    for subject in ("_INBOX.user.>", "events.>", "dead_letters.>", "$JS.API.>", ">"):
        await client.subscribe(subject)
    for what in (
        "STREAM.DELETE.events",
        "STREAM.PURGE.events",
        "STREAM.INFO.events",
        "CONSUMER.MSG.NEXT.events.listener",
    ):
        with pytest.raises(NatsError):
            await client.request(f"$JS.API.{what}", b"", timeout=0.2)
    await client.close()
    assert len(refused) == 9
    assert all("permissions violation" in one for one in refused)
    assert await stored(server) == 0


async def test_whoever_is_not_in_the_table_is_not_let_in(server: brokers.Server, tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="Authorization"):
        async with connection(server.url, server.certificates_of("nobody"), "nobody"):
            pass
    # The edge has a certificate, and nothing to do here.
    with pytest.raises(BrokerUnavailable, match="Authorization"):
        async with connection(server.url, server.certificates_of("edge"), "edge"):
            pass
    stranger = brokers.Server(tmp_path)
    theirs = stranger.certificates_of("order")
    (theirs / "ca.crt").unlink()
    (theirs / "ca.crt").write_bytes((server.layout.pki / "root.crt").read_bytes())
    with pytest.raises(BrokerUnavailable):
        async with connection(server.url, theirs, "order"):
            pass
    none = ssl.create_default_context(cafile=str(server.layout.pki / "root.crt"))
    client = Client()
    with pytest.raises((NatsError, OSError)):
        await client.connect(
            server.url, tls=none, tls_handshake_first=True, allow_reconnect=False, error_cb=lambda _: asyncio.sleep(0)
        )


async def test_who_comes_before_the_broker_is_refused_at_once_and_connected_once_it_is_there(
    server: brokers.Server,
) -> None:
    await server.kill()
    order = Nats(server.url, server.certificates_of("order"), "order")
    running = asyncio.create_task(order.run())
    await asyncio.sleep(0.3)
    with pytest.raises(BrokerUnavailable, match="cannot be reached"):
        await order.check()
    with pytest.raises(BrokerUnavailable, match="cannot be reached"):
        await order.publish(event())
    await server.start()
    await brokers.connected(order)
    await order.publish(event())
    running.cancel()
    await asyncio.wait([running])
    assert await stored(server) == 1


async def test_a_client_that_no_longer_tries_to_connect_is_replaced(
    server: brokers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "GIVE_UP_SECONDS", 0.5)
    async with server.client("order") as order:
        stuck = order.connected()
        await server.kill()
        async with asyncio.timeout(30):
            while stuck._reconnection_task is None:
                await asyncio.sleep(0.01)
        # What the library does to itself, when an old connection's end is noticed while a new one is being made.
        stuck._reconnection_task.cancel()
        await server.start()
        await brokers.connected(order)
        assert order.connected() is not stuck
        await order.publish(event())
    assert await stored(server) == 1


async def test_who_cannot_read_its_certificate_says_so_and_connects_once_it_can(
    server: brokers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "GIVE_UP_SECONDS", 0.5)
    certificates = server.certificates_of("order")
    key = (certificates / "tls.key").resolve()
    content = key.read_bytes()
    key.unlink()
    order = Nats(server.url, certificates, "order")
    running = asyncio.create_task(order.run())
    await asyncio.sleep(0.2)
    with pytest.raises(BrokerUnavailable, match="No such file"):
        await order.check()
    key.write_bytes(content)
    await brokers.connected(order)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("before_the_first", [True, False], ids=["before the first connection", "after one"])
async def test_so_is_one_that_waits_for_ever_for_the_end_of_a_connection(
    server: brokers.Server, monkeypatch: pytest.MonkeyPatch, *, before_the_first: bool
) -> None:
    """As asyncio's TLS does now and then when the other side has gone; and the client keeps a cancellation to itself."""
    released = asyncio.Event()

    async def wait_closed(_transport: TcpTransport) -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    monkeypatch.setattr(nats, "GIVE_UP_SECONDS", 0.5)
    monkeypatch.setattr(nats, "_CONNECT_SECONDS", 0.5)
    order = Nats(server.url, server.certificates_of("order"), "order")
    assert server.process is not None
    if before_the_first:
        # Takes connections, and says nothing.
        server.process.send_signal(signal.SIGSTOP)
    running = asyncio.create_task(order.run())
    if not before_the_first:
        await brokers.connected(order)
    with monkeypatch.context() as patch:
        patch.setattr(TcpTransport, "wait_closed", wait_closed)
        await asyncio.sleep(1 if before_the_first else 0)
        await server.kill()
        await server.start()
        await brokers.connected(order)
    await order.publish(event())
    running.cancel()
    await asyncio.wait([running])
    released.set()
    assert await stored(server) == 1


async def test_an_event_that_is_published_again_is_stored_once(server: brokers.Server) -> None:
    same = event()
    async with server.client("order") as order:
        for _ in range(3):
            await order.publish(same)
    assert await stored(server) == 1


async def test_events_that_are_published_together_are_stored_in_their_order_or_not_at_all(
    server: brokers.Server,
) -> None:
    events = [event(data=str(number).encode()) for number in range(1000)]
    async with server.client("order") as order, operator(server) as client:
        await order.publish_together(events)
        stream = client.jetstream()
        found = [await stream.get_msg("events", sequence) for sequence in (1, 2, 500, 1000)]
        assert [message.data for message in found] == [b"0", b"1", b"499", b"999"]
        assert (found[0].headers or {})["ce-id"] == str(events[0].id)
        for refused in (
            # One is there already, is larger than the broker takes, is not this service's to tell; or there are too many.
            [event(), events[7], event()],
            [event(), event(data=b"x" * (limits.MAX_EVENT_BYTES - 100)), event()],
            [event(), event("user.v1.UserRegistered"), event()],
            [event() for _ in range(1001)],
        ):
            with pytest.raises(NotTogether):
                await order.publish_together(refused)
        assert await stored(server) == 1000
        await order.publish_together([event()])
    assert await stored(server) == 1001


async def test_an_event_that_is_too_large_ends_nobodys_connection(server: brokers.Server) -> None:
    async with server.client("order") as order:
        for data in (limits.MAX_EVENT_BYTES + 1, limits.MAX_EVENT_BYTES - 100):
            with pytest.raises(MaxPayloadError):
                await order.publish(event(data=b"x" * data))
            assert order.is_connected
        await order.publish(event())
    assert await stored(server) == 1


async def test_a_server_that_is_killed_while_it_stores_batches_has_each_whole_or_not(server: brokers.Server) -> None:
    async with server.client("order", timeout=2) as order:
        answered, size = 0, 50

        async def publish() -> None:
            nonlocal answered
            while True:
                await order.publish_together([event() for _ in range(size)])
                answered += 1

        publishing = asyncio.create_task(publish())
        while answered < 3:
            await asyncio.sleep(0.001)
        await server.kill()
        with pytest.raises(BrokerUnavailable):
            await publishing
        await server.start()
    assert await stored(server) in (answered * size, (answered + 1) * size)


async def test_what_nobody_waits_for_is_not_kept(server: brokers.Server) -> None:
    async with server.client("order") as order:
        await order.publish(event("order.v1.OrderExpired"))
    assert await stored(server) == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_what_was_published_survives_the_server(server: brokers.Server, how: signal.Signals) -> None:
    async with server.client("order") as order:
        for _ in range(20):
            await order.publish(event())
        await server.kill(how)
        with pytest.raises(BrokerUnavailable):
            await order.publish(event())
        await server.start()
        await brokers.connected(order)
        await order.publish(event())
    assert await stored(server) == 21


async def test_a_full_stream_refuses_and_loses_nothing(server: brokers.Server) -> None:
    async with operator(server) as client:
        found = await ask(client, "STREAM.INFO.events")
        await ask(client, "STREAM.UPDATE.events", **{**found["config"], "max_bytes": 20_000})  # type: ignore[dict-item]
        async with server.client("order") as order:
            published = 0
            with pytest.raises(BrokerUnavailable, match="maximum bytes"):
                while True:
                    await order.publish(event(data=b"x" * 1000))
                    published += 1
            assert await stored(server) == published > 10
            # As soon as somebody has acted on one, there is room again.
            asked = json.dumps({"batch": 1, "group": "one", "expires": 10**10}).encode()
            answers = await client.subscribe("_INBOX.ops.events")
            await client.publish("$JS.API.CONSUMER.MSG.NEXT.events.listener", asked, reply="_INBOX.ops.events")
            given = await answers.next_msg(timeout=20)
            await client.request(given.reply, b"+ACK", timeout=20)
            await order.publish(event(data=b"x" * 1000))
    # The declared size comes back with the next start.
    assert await server.apply() == ["stream events changed"]
    assert await server.apply() == []


async def test_a_full_disk_loses_nothing_that_was_stored(server: brokers.Server) -> None:
    assert server.process is not None
    async with server.client("order") as order:
        await order.publish(event())
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
        published = 1
        with pytest.raises(BrokerUnavailable):
            while True:
                await order.publish(event(data=b"x" * 10_000))
                published += 1
        # Whoever watches it sees that it does not work, and starts it anew.
        async with asyncio.timeout(10):
            while await health.broker_works(server.layout):
                await asyncio.sleep(0.05)
        await server.kill()
        await server.start()
        await brokers.connected(order)
        await order.publish(event())
    assert await stored(server) == published + 1


async def test_the_broker_and_its_clients_take_certificates_of_a_new_authority(server: brokers.Server) -> None:
    assert server.process is not None
    async with server.client("order") as order:
        rotating = asyncio.create_task(asyncio.to_thread(server.certificates.rotate_authority))
        while not rotating.done():
            server.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.3)
        await rotating
        server.process.send_signal(signal.SIGHUP)
        # Who is connected stays so; who comes has the new one, and trusts no other.
        await order.publish(event())
        async with server.client("user") as user:
            await user.publish(event("user.v1.UserRegistered"))


async def test_a_consumer_without_a_row_keeps_its_events_until_it_is_removed(server: brokers.Server) -> None:
    """An older release's table, applied beside a newer one, takes nothing from it."""
    server.services = DEAF
    async with server.client("order") as order:
        await order.publish(event())
    kept = ["consumer listener kept, although no row has it: events wait for it until it is removed"]
    assert await server.apply() == kept
    assert await stored(server) == 1
    assert await server.apply(remove=True) == ["consumer listener removed: no row has it"]
    assert await stored(server) == 0
    assert await server.apply() == []
