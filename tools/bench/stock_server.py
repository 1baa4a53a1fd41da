"""A service without Envoy inside, for comparison: `python stock_server.py bff|order PORT [UPSTREAM=PORT ...]`.

The same composition (`build`) on the servers that a sidecar topology uses: grpcio's for Order, uvicorn for the BFF.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import bff.main
import bff.settings
import grpc
import order.main
import order.settings
import uvicorn
from chassis.config import load
from chassis.database import Database
from chassis.grpc.peer import Peer
from chassis.logging import configure
from chassis.valkey import CACHE_TIMEOUT_SECONDS, PipelinedClient


async def serve_order(port: int) -> None:
    """The Order service on grpcio's server."""
    settings = load(order.settings.Settings)
    configure("order", environment=settings.environment, version=settings.version, level=settings.log_level)
    database = Database.configured(settings, service="order")
    await database.open()
    client = PipelinedClient(settings.cache_url.get_secret_value(), CACHE_TIMEOUT_SECONDS, settings.cache_password_file)
    server = grpc.aio.server()
    order.main.build(settings, database, client).add_to(server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def serve_bff(port: int, upstreams: Mapping[str, int]) -> None:
    """The BFF on uvicorn; it calls the other services through its sidecar, which has a port for each."""
    settings = load(bff.settings.Settings)
    configure("bff", environment=settings.environment, version=settings.version, level=settings.log_level)
    client = PipelinedClient(settings.valkey_url.get_secret_value(), password_file=settings.valkey_password_file)
    peers = {name: Peer(grpc.aio.insecure_channel(f"127.0.0.1:{at}")) for name, at in upstreams.items()}
    application = bff.main.build(settings, client, peers.__getitem__)
    config = uvicorn.Config(application, port=port, lifespan="off", log_level="error", access_log=False, loop="uvloop")
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    import uvloop

    name, own, *others = sys.argv[1:]
    calls = {upstream: int(at) for upstream, _, at in (other.partition("=") for other in others)}
    uvloop.run(serve_order(int(own)) if name == "order" else serve_bff(int(own), calls))
