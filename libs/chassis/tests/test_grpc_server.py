"""What becomes of a call whose caller goes away while it is answered."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog
from chassis.grpc import framing
from chassis.grpc.server import GrpcApplication
from google.protobuf.empty_pb2 import Empty
from grpc import unary_stream_rpc_method_handler, unary_unary_rpc_method_handler
from structlog.testing import CapturingLogger


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    capturing = CapturingLogger()
    monkeypatch.setattr("chassis.grpc.server._log", structlog.wrap_logger(capturing, processors=[]))
    return capturing


@pytest.mark.parametrize("writes", range(5))
@pytest.mark.parametrize("method", ["One", "Several", "Refused", "Unknown"])
async def test_an_answer_that_nobody_takes_is_no_error(method: str, writes: int, logged: CapturingLogger) -> None:
    async def one(_request: Empty, _context: Any) -> Empty:
        return Empty()

    async def several(_request: Empty, _context: Any) -> Any:
        for _ in range(3):
            yield Empty()

    async def refused(_request: Empty, context: Any) -> Empty:
        raise ConnectionError("of the handler, and an error")

    parse, spell = Empty.FromString, Empty.SerializeToString
    application = GrpcApplication()
    application.add_registered_method_handlers(
        "test.Service",
        {
            "One": unary_unary_rpc_method_handler(one, parse, spell),
            "Several": unary_stream_rpc_method_handler(several, parse, spell),
            "Refused": unary_unary_rpc_method_handler(refused, parse, spell),
        },
    )
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": framing.encode_frame(b""), "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if len(sent) == writes:
            # pyvoy.ClientDisconnectedError is one, as ASGI 2.4 wants it.
            raise OSError
        sent.append(message["type"])

    headers = [(b"content-type", b"application/grpc")]
    scope = {"type": "http", "method": "POST", "path": f"/test.Service/{method}", "headers": headers}
    await application(scope, receive, send)
    assert len(sent) <= writes
    assert [call.method_name for call in logged.calls] == (["error"] if method == "Refused" else [])
