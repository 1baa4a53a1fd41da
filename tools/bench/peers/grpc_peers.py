"""What a unary gRPC call costs its server and its client, by library: CPU time of the process, interleaved (ADR 0002)."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import httpx
import psutil
import yaml
from chassis.launch import environment, envoy_command
from devstack.proxies import python_module
from echo import CLUSTER

_HERE = Path(__file__).parent
_ROUNDS = 5
_CALLS = 4_000
_HOSTED = ("chassis", "connectrpc")
_ALONE = ("grpcio", "grpclib")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _configuration(application: str, port: int, upstream: int) -> str:
    kinds = "type.googleapis.com/envoy.extensions"
    python = {
        "@type": f"{kinds}.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        "dynamic_module_config": {"module": {"local": {"filename": str(python_module())}}},
        "filter_name": "pyvoy",
        "terminal_filter": True,
        "filter_config": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": f'{{"app": "{application}", "interface": "asgi", "root_path": "", "lifespan": false}}',
        },
    }
    manager = {
        "@type": f"{kinds}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"]}]},
        "http_filters": [{"name": "python", "typed_config": python}],
    }
    http2 = {
        "@type": f"{kinds}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": _address(upstream)}}
    return yaml.safe_dump(
        {
            "static_resources": {
                "listeners": [
                    {
                        "address": _address(port),
                        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                    }
                ],
                "clusters": [
                    {
                        "name": CLUSTER,
                        "type": "STATIC",
                        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
                        "typed_extension_protocol_options": {
                            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                        },
                    }
                ],
            }
        }
    )


@contextlib.contextmanager
def _running(command: list[str], port: int, variables: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output, cwd=log.parent)
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                    break
                if process.poll() is not None:
                    break
                time.sleep(0.05)
            else:
                process.terminate()
            if process.poll() is not None:
                raise RuntimeError(log.read_text(encoding="utf-8", errors="replace"))
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def _hosted(application: str, upstream: int, scratch: Path) -> Iterator[tuple[int, psutil.Process]]:
    """An Envoy with an application inside and no policy around it."""
    port, config = _free_port(), scratch / f"{application}.yaml"
    config.write_text(_configuration(application, port, upstream), encoding="utf-8")
    variables = environment()
    variables["PYTHONPATH"] = f"{_HERE}:{variables['PYTHONPATH']}"
    with _running(envoy_command(config), port, variables, scratch / f"{application}.log") as process:
        yield port, process


def _call(library: str, port: int) -> float:
    """Microseconds of CPU that a call costs the client of a library that runs in a process of its own."""
    command = [*_script(library), "call", str(port), str(_CALLS)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _script(library: str) -> list[str]:
    return [sys.executable, str(_HERE / f"with_{library}.py")]


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _medians(measure: Callable[[str], float]) -> dict[str, float]:
    """By library: one after the other, round after round; the first round warms up."""
    rounds = [{name: measure(name) for name in (*_HOSTED, *_ALONE)} for _ in range(_ROUNDS + 1)][1:]
    return {name: median(one[name] for one in rounds) for name in rounds[0]}


def measure() -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of CPU for a call, by library: of the server, and of the client."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers: dict[str, tuple[int, psutil.Process]] = {}
        for name in _ALONE:
            port = _free_port()
            command = [*_script(name), "serve", str(port)]
            process = _running(command, port, dict(os.environ), scratch / f"{name}.log")
            servers[name] = (port, stack.enter_context(process))
        echo = servers["grpcio"][0]
        for name in _HOSTED:
            servers[name] = stack.enter_context(_hosted(f"with_{name}:server", echo, scratch))
        clients = {name: stack.enter_context(_hosted(f"with_{name}:client", echo, scratch))[0] for name in _HOSTED}

        def of_server(name: str) -> float:
            port, process = servers[name]
            before = _seconds(process)
            _call("grpcio", port)
            return (_seconds(process) - before) / _CALLS * 1e6

        def of_client(name: str) -> float:
            if name in _ALONE:
                return _call(name, echo)
            url = f"http://127.0.0.1:{clients[name]}/{_CALLS}"
            return float(httpx.get(url, timeout=60).raise_for_status().text)

        return _medians(of_server), _medians(of_client)


if __name__ == "__main__":
    for side, costs in zip(("server", "client"), measure(), strict=True):
        for name, microseconds in costs.items():
            print(f"{side:<8}{name:<12}{microseconds:7.1f} us")
