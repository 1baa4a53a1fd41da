"""The services without pyvoy: Order on grpcio's server, the BFF on uvicorn, an Envoy beside each with the same policies: `make sidecars`.

What docs/supply-chain.md falls back to if pyvoy stops. Started on a stack of its own, and gone through from a registration to an order that is
paid (tools/smoke.py). What it costs, `make bench` measures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import topologies
from bench import RATE_LIMIT_SCALE, Bench
from devstack.layout import ROOT, Layout
from devstack.options import Options

OFFSET = 5000


def main() -> int:
    """0 when the whole way can be gone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port-offset", type=int, default=OFFSET, help="of the stack")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecars-") as directory:
        bench = Bench(Layout(Path(directory) / "stack", arguments.port_offset), 1)
        try:
            bench.start()
            asyncio.run(bench.prepare())
            with topologies.sidecars(bench.layout, Options(rate_limit_scale=RATE_LIMIT_SCALE)) as url:
                command = [sys.executable, str(ROOT / "tools/smoke.py")]
                environment = {**os.environ, "URL": url, "PAYMENT_TOKEN": "tok_approved"}
                return subprocess.run(command, env=environment, check=False).returncode
        finally:
            bench.stop()


if __name__ == "__main__":
    sys.exit(main())
