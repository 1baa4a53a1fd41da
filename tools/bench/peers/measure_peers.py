"""What we wrote ourselves beside the libraries that we could have taken instead, measured in one run.

Installs those libraries, from a lock of their own, into .venv/peers: nothing else uses them. Prints for each subject the
CPU time of one call (ADR 0002: gRPC servers and clients; ADR 0003: field rules; ADR 0006: Valkey clients).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_INSTALLED = Path(sys.prefix) / "peers"
_SUBJECTS = ("grpc_peers", "field_rules", "valkey_peers")


def main() -> None:
    """Install, measure, print."""
    uv = Path(sys.executable).parent / "uv"
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", _INSTALLED, "--require-hashes",
         "-r", _HERE / "requirements.lock"],
        check=True,
    )  # fmt: skip
    paths = os.pathsep.join(map(str, (_INSTALLED, _HERE, _HERE.parent)))
    for subject in _SUBJECTS:
        print(f"\n{subject.replace('_', ' ')}", flush=True)
        command = [sys.executable, str(_HERE / f"{subject}.py")]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": paths})


if __name__ == "__main__":
    main()
