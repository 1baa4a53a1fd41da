"""connectrpc's server and client, each an application that an Envoy hosts. Its messages are of a protobuf of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectrpc.client import ConnectClient
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from connectrpc.server import ConnectASGIApplication, Endpoint
from echo import CLUSTER, METHOD, PATH, SERVICE, TEXT, answering_with_cost
from protobuf.wkt.google.protobuf.wrappers_pb import StringValue
from pyqwest import Client
from pyvoy.asgi.httpclient import HTTPTransport

_METHOD = MethodInfo(
    name=METHOD,
    service_name=SERVICE,
    input=StringValue,
    output=StringValue,
    idempotency_level=IdempotencyLevel.UNKNOWN,
    stream_type=StreamType.UNARY,
)


async def _say(request: Any, _context: Any) -> Any:
    return StringValue(value=request.value)


class _Application(ConnectASGIApplication[None]):  # type: ignore[misc]  # not installed where types are checked
    @property
    def path(self) -> str:
        return f"/{SERVICE}"


def _endpoints(_service: None) -> Mapping[str, Any]:
    return {PATH: Endpoint.unary(method=_METHOD, function=_say)}


server = _Application(service=None, endpoints=_endpoints, compressions=())

_client = ConnectClient(
    f"http://{CLUSTER}",
    protocol=ProtocolType.GRPC,
    send_compression=None,
    accept_compression=(),
    http_client=Client(HTTPTransport(CLUSTER, timeout=5.0)),
)
_request = StringValue(value=TEXT)
client = answering_with_cost(lambda: _client.execute_unary(request=_request, method=_METHOD, timeout_ms=5000))
