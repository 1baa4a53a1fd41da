"""Brings a broker's streams and consumers to what is declared (`mesh.broker`): what is missing is made, what differs changed.

Like a migration it may run at any time, beside everybody, and again. JetStream's own requests as JSON (docs.nats.io,
"JetStream wire API"), for the client's classes have not all of their fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from chassis.events import limits, subjects
from chassis.events.nats import connection
from chassis.events.publisher import BrokerUnavailable
from nats.aio.client import Client
from nats.errors import Error as NatsError

from mesh import broker
from mesh.topology import OPERATORS, SERVICES, Service

_SECOND = 1_000_000_000
_REQUEST_SECONDS = 10.0
_NOT_FOUND = 404
# Of the consumers' only group: NATS wants it to have a name.
GROUP = "one"
Settings = Mapping[str, object]


class _Error(msgspec.Struct, frozen=True):
    code: int
    description: str = ""


class _Answer(msgspec.Struct, frozen=True):
    error: _Error | None = None
    config: dict[str, object] = {}
    # Of a list.
    consumers: list[str] | None = None


async def apply(
    url: str,
    certificates: Path,
    *,
    replicas: int,
    remove: bool = False,
    dry_run: bool = False,
    services: Sequence[Service] = SERVICES,
) -> list[str]:
    """Bring the broker to what is declared; what was done for that, or would be, a line each.

    Args:
        url: of the broker, or of several of a cluster, separated by commas.
        certificates: the operators' certificate.
        replicas: servers of a cluster that have each stream; 1 on a single one.
        remove: whether consumers that no row has are removed, and what they have not acted on with them. Without, they are only
            named: an older release's table does not know those of a newer one that runs beside it.
        dry_run: only say what would be done.
        services: the rows that consumers are made for.

    Raises:
        BrokerUnavailable: it cannot be reached, or refuses something.
    """
    try:
        async with connection(url, certificates, OPERATORS) as client:
            declared = _Declared(client, replicas, broker.consumers(services), remove=remove, dry_run=dry_run)
            return await declared.apply()
    except (NatsError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(str(error) or type(error).__name__) from error


class _Declared:
    def __init__(
        self, client: Client, replicas: int, consumers: Sequence[broker.Consumer], *, remove: bool, dry_run: bool
    ) -> None:
        self._client = client
        self._replicas = replicas
        self._consumers = consumers
        self._remove = remove
        self._dry_run = dry_run

    async def apply(self) -> list[str]:
        done = []
        for stream in broker.STREAMS:
            done += await self._stream(stream)
        for consumer in self._consumers:
            done += await self._consumer(consumer)
        return done + await self._others()

    async def _stream(self, stream: broker.Stream) -> list[str]:
        wanted: Settings = {
            "name": stream.name,
            "subjects": list(stream.subjects),
            "retention": "interest" if stream.until_consumed else "limits",
            "storage": "file",
            # Rather than to lose what is there.
            "discard": "new",
            "max_bytes": stream.max_bytes,
            "max_msg_size": stream.max_message_bytes,
            "max_age": 0,
            "duplicate_window": broker.DUPLICATES_SECONDS * _SECOND,
            "num_replicas": self._replicas,
            "deny_purge": False,
            "allow_direct": True,
            # A relay publishes many events as one.
            "allow_atomic": True,
        }
        current = await self._ask(f"STREAM.INFO.{stream.name}")
        if current.error is not None:
            return await self._change("STREAM.CREATE", stream.name, wanted, f"stream {stream.name} made")
        if _differs(wanted, current.config):
            return await self._change("STREAM.UPDATE", stream.name, wanted, f"stream {stream.name} changed")
        return []

    async def _consumer(self, consumer: broker.Consumer) -> list[str]:
        wanted: Settings = {
            "name": consumer.service,
            "durable_name": consumer.service,
            "filter_subjects": list(consumer.subjects),
            # What happened before a service cared is none of its concern.
            "deliver_policy": "new",
            "ack_policy": "explicit",
            "ack_wait": int(limits.ACK_SECONDS * _SECOND),
            # How often is for the chassis to say: it can tell a consumer that was killed from an event that cannot be read.
            "max_deliver": -1,
            "max_ack_pending": limits.MOST_HELD,
            "max_waiting": 64,
            "num_replicas": self._replicas,
            # One replica of the service at a time, and another one soon after it has gone: so events stay in their order.
            "priority_groups": [GROUP],
            "priority_policy": "pinned_client",
            "priority_timeout": int(limits.ACK_SECONDS * _SECOND),
        }
        name = f"{subjects.EVENTS}.{consumer.service}"
        current = await self._ask(f"CONSUMER.INFO.{name}")
        request = {"stream_name": subjects.EVENTS, "config": wanted, "action": ""}
        if current.error is not None:
            return await self._change("CONSUMER.CREATE", name, request, f"consumer {consumer.service} made")
        if _differs(wanted, current.config):
            return await self._change("CONSUMER.CREATE", name, request, f"consumer {consumer.service} changed")
        return []

    async def _others(self) -> list[str]:
        """Consumers that no row has: what nobody takes any more is kept for them, until the stream is full."""
        declared = {consumer.service for consumer in self._consumers}
        listed = await self._ask(f"CONSUMER.NAMES.{subjects.EVENTS}")
        done = []
        for name in listed.consumers or ():
            if name in declared:
                continue
            if not self._remove:
                done.append(f"consumer {name} kept, although no row has it: events wait for it until it is removed")
                continue
            done += await self._change(
                "CONSUMER.DELETE", f"{subjects.EVENTS}.{name}", {}, f"consumer {name} removed: no row has it"
            )
        return done

    async def _change(self, what: str, name: str, request: Settings, done: str) -> list[str]:
        if not self._dry_run:
            answer = await self._ask(f"{what}.{name}", request)
            if answer.error is not None:
                raise BrokerUnavailable(f"{name}: {answer.error.description}")
        return [done]

    async def _ask(self, what: str, request: Settings | None = None) -> _Answer:
        body = b"" if request is None else json.dumps(request).encode()
        answer = await self._client.request(f"$JS.API.{what}", body, timeout=_REQUEST_SECONDS)
        found = msgspec.json.decode(answer.data, type=_Answer)
        if found.error is not None and request is None and found.error.code != _NOT_FOUND:
            raise BrokerUnavailable(f"{what}: {found.error.description}")
        return found


def _differs(wanted: Settings, current: Settings) -> bool:
    """Whether what is declared is not what there is. What is zero or false is left out of answers."""
    return any(value != current.get(name, type(value)()) for name, value in wanted.items())
