"""Our server and our channel, each an application that an Envoy hosts."""

from __future__ import annotations

import grpc
from chassis.grpc.server import GrpcApplication
from chassis.host import upstream_channel
from echo import CLUSTER, METHOD, PATH, SERVICE, TEXT, answering_with_cost
from google.protobuf.wrappers_pb2 import StringValue


async def _say(request: StringValue, _context: object) -> StringValue:
    return StringValue(value=request.value)


server = GrpcApplication(message_limit_bytes=65536)
server.add_registered_method_handlers(
    SERVICE,
    {
        METHOD: grpc.unary_unary_rpc_method_handler(
            _say, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
        )
    },
)

_call = upstream_channel(CLUSTER).unary_unary(PATH, StringValue.SerializeToString, StringValue.FromString)
_request = StringValue(value=TEXT)
client = answering_with_cost(lambda: _call(_request, timeout=5.0))
