"""What an image's HEALTHCHECK runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from chassis import probe


@contextmanager
def answering(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz/ready" else 404)
            self.end_headers()
            self.wfile.write(b'{"ready": "or not"}')

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_a_process_is_ready_when_its_ops_listener_says_so(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(status) as port:
        monkeypatch.setenv("OPS_PORT", str(port))
        assert probe.main() == code
    assert capsys.readouterr().out == f'{status} {{"ready": "or not"}}\n'


def test_nobody_who_answers_is_not_ready(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200) as port:
        pass
    monkeypatch.setenv("OPS_PORT", str(port))
    assert probe.main() == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["", "http", "-1"])
def test_without_a_port_nothing_is_asked(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPS_PORT", port)
    assert probe.main() == 1
    assert "OPS_PORT" in capsys.readouterr().err
