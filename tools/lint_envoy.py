"""Renders every Envoy configuration, whole and with each policy left out, and has Envoy itself validate it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chassis.launch import environment, envoy_command
from devstack.layout import Layout
from devstack.options import Options
from mesh.certificates import Certificates
from mesh.policies import POLICIES

from devstack import proxies

_VARIANTS = (
    Options(
        replicas={"order": 2},
        cors_origins=("https://shop.example",),
        trusted_proxies=("10.0.0.0/8",),
        https_only=True,
    ),
    *(Options(without=(policy,)) for policy in POLICIES),
)


def validate(config: Path) -> str:
    """What Envoy finds wrong; empty when it is valid."""
    command = [envoy_command(config)[0], "--mode", "validate", "--config-path", str(config), "--log-level", "error"]
    # Paths below `run` are relative to the stack's directory.
    place = config.parent.parent
    done = subprocess.run(command, env=environment(), cwd=place, capture_output=True, encoding="utf-8", check=False)
    return "" if done.returncode == 0 else f"{config.name}: {(done.stdout + done.stderr)[-2000:]}"


def main() -> int:
    """Validate all; 1 when one is not valid."""
    with tempfile.TemporaryDirectory() as directory:
        configs: dict[str, Path] = {}
        for number, options in enumerate((Options(), *_VARIANTS)):
            layout = Layout(Path(directory) / str(number))
            if number == 0:
                Certificates(layout.pki, layout.certificates).ensure()
            else:
                layout.data_dir.mkdir()
                layout.certificates.symlink_to(Path(directory) / "0" / "certs")
            # Envoys that a policy does not touch are rendered alike, and validated once.
            for name, path in proxies.render(layout, options, lifespan=False).items():
                # All services are one template: of the variants, one service is enough.
                if number > 1 and name not in ("edge", "order"):
                    continue
                configs.setdefault(path.read_text(encoding="utf-8").replace(f"{directory}/{number}/", ""), path)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            problems = [problem for problem in pool.map(validate, configs.values()) if problem]
    print("\n".join(problems))
    print(f"{len(configs)} configurations", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
