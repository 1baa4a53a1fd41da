"""Python inside Envoy beside the usual sidecars: the same hot read, policies and machine, in one run (ADR 0001)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from bench import RATE_LIMIT_SCALE, Bench
from devstack.layout import Layout
from devstack.options import Options
from devstack.secrets import load_or_create
from measured import HotRead, mean_of
from mesh.topology import row

from devstack import proxies, services

HERE = Path(__file__).parent
_ROUNDS = 2
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}
Config = dict[str, Any]


async def measure(bench: Bench) -> dict[str, HotRead]:
    """The hot read by topology, measured in turns, on a stack that runs."""
    found: dict[str, list[HotRead]] = {"inside": [], "sidecars": []}
    with sidecars(bench.layout, Options(rate_limit_scale=RATE_LIMIT_SCALE)) as url_of_sidecars:
        urls = {"inside": bench.url, "sidecars": url_of_sidecars}
        for url in urls.values():
            await bench.hot_read(url)
        for _ in range(_ROUNDS):
            for name, url in urls.items():
                found[name].append(await bench.hot_read(url))
    return {name: mean_of(several) for name, several in found.items()}


@contextmanager
def sidecars(layout: Layout, options: Options) -> Iterator[str]:
    """Edge, BFF and Order once more, with an Envoy beside each Python process; the URL of their edge."""
    upstreams = row("bff").upstreams
    order_python, bff_python, order_in, bff_in, edge_in, *free = _free_ports(5 + len(upstreams))
    egress = dict(zip(upstreams, free, strict=True))
    secrets = load_or_create(layout.secrets)
    own = Layout(layout.data_dir, layout.port_offset + 7000)
    with ExitStack() as stack:
        for name, ports in (
            ("order", [str(order_python)]),
            ("bff", [str(bff_python), *(f"{upstream}={port}" for upstream, port in egress.items())]),
        ):
            environment = {**os.environ, **services.environment(name, layout, secrets, options), "LOG_LEVEL": "info"}
            command = [sys.executable, str(HERE / "stock_server.py"), name, *ports]
            _start(stack, layout, f"stock-{name}", command, environment)
        order = _load(layout, options, "order", own)
        _forward(order, order_in, order_python, http2=True)
        bff = _load(layout, options, "bff", own)
        _forward(bff, bff_in, bff_python, http2=False)
        _point(bff, "order", order_in)
        for cluster, port in egress.items():
            bff["static_resources"]["listeners"].append(_egress(cluster, port))
        edge = _load(layout, options, "edge", own)
        _point(edge, "bff", bff_in)
        public = edge["static_resources"]["listeners"][0]
        public["address"]["socket_address"]["port_value"] = edge_in
        for name, config in (("order", order), ("bff", bff), ("edge", edge)):
            path = layout.envoy / f"sidecar-{name}.yaml"
            path.write_text(yaml.safe_dump(config), encoding="utf-8")
            _start(
                stack, layout, f"sidecar-{name}", [sys.executable, "-m", "chassis.launch", str(path)], {**os.environ}
            )
        url = f"http://127.0.0.1:{edge_in}"
        give_up = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"{url}/v1/products?limit=1").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if time.monotonic() > give_up:
                raise SystemExit("the sidecar topology did not start; see its logs")
            time.sleep(0.2)
        yield url


def _start(stack: ExitStack, layout: Layout, name: str, command: list[str], environment: dict[str, str]) -> None:
    log = stack.enter_context((layout.logs / f"{name}.log").open("wb"))
    process = subprocess.Popen(command, env=environment, cwd=layout.data_dir, stdout=log, stderr=log)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


def _load(layout: Layout, options: Options, process: str, own: Layout) -> Config:
    path = proxies.render_one(layout, options, process, own)
    config: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.unlink()
    return config


def _forward(config: Config, port: int, python_port: int, *, http2: bool) -> None:
    """Make a service's Envoy a sidecar: the same listener and filters, but Python is behind a socket."""
    listeners = config["static_resources"]["listeners"]
    listeners[:] = [one for one in listeners if one["name"] != "python_ops"]
    traffic = listeners[0]
    traffic["address"]["socket_address"]["port_value"] = port
    manager = traffic["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][-1] = _ROUTER
    manager["route_config"] = _route("python")
    clusters = config["static_resources"]["clusters"]
    clusters[:] = [one for one in clusters if one["name"] != "python_ops"]
    clusters.append(_local("python", python_port, http2=http2))
    ops = next(one for one in listeners if one["name"] == "ops")
    routes = ops["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
    routes[-1] = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}


def _egress(cluster: str, port: int) -> Config:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "egress",
        "codec_type": "HTTP2",
        "route_config": _route(cluster),
        "http_filters": [_ROUTER],
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": f"egress_{cluster}", "address": address, "filter_chains": [{"filters": [network]}]}


def _route(cluster: str) -> Config:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "15s"}}]
    return {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}


def _local(name: str, port: int, *, http2: bool) -> Config:
    protocol: Config = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": name,
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {"@type": f"type.googleapis.com/{options}", "explicit_http_config": protocol}
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }


def _point(config: Config, cluster: str, port: int) -> None:
    found = next(one for one in config["static_resources"]["clusters"] if one["name"] == cluster)
    endpoint = found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"]["port_value"] = port


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
