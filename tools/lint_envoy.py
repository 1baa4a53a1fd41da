"""Renders every Envoy configuration, whole and with each policy left out, and has Envoy itself validate it.

What Envoy has found valid before, the same text by the same programs, is not validated again (tools/check_cache.py).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import check_cache
from chassis.launch import environment, envoy_command
from devstack.layout import Layout
from devstack.options import Options
from mesh.certificates import Certificates
from mesh.policies import POLICIES
from mesh.topology import EDGE

from devstack import proxies

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".lint_cache"
NAME = "envoy, each configuration"
_VARIANTS = (
    Options(
        replicas={"order": 2},
        cors_origins=("https://shop.example",),
        trusted_proxies=("10.0.0.0/8",),
        https_only=True,
    ),
    *(Options(without=(policy,)) for policy in POLICIES),
)
# All services are one template: of the variants without a policy, one service is enough.
_ONE_OF_EACH = (EDGE.name, "order")
# What an Envoy imports that has a service in it, and how its configuration says which. Of the variants nothing is new in there:
# they are validated with something else that can be imported, which takes a quarter of the time.
_PYTHON = r"^(libs|services)/.*\.py$"
_SERVICE = re.compile(r'"\w+\.main:(app|ops)"')
_ANYTHING = '"json:loads"'


def validate(config: Path) -> str:
    """What Envoy finds wrong; empty when it is valid."""
    command = [envoy_command(config)[0], "--mode", "validate", "--config-path", str(config), "--log-level", "error"]
    # Paths below `run` are relative to the stack's directory.
    place = config.parent.parent
    done = subprocess.run(command, env=environment(), cwd=place, capture_output=True, encoding="utf-8", check=False)
    return "" if done.returncode == 0 else f"{config.name}: {(done.stdout + done.stderr)[-2000:]}"


def render(directory: Path) -> dict[str, Path]:
    """Every configuration there is, by its text without the directory that it was rendered into."""
    found: dict[str, Path] = {}
    for number, options in enumerate((Options(), *_VARIANTS)):
        layout = Layout(directory / str(number))
        if number == 0:
            Certificates(layout.pki, layout.certificates).ensure()
        else:
            layout.data_dir.mkdir()
            layout.certificates.symlink_to(directory / "0" / "certs")
        proxies.prepare(layout, options)
        site = proxies.site(layout, options, lifespan=False)
        for name in options.every_process if number <= 1 else _ONE_OF_EACH:
            path = proxies.render_own(layout, options, name, site)
            text = path.read_text(encoding="utf-8")
            if number > 0:
                text = _SERVICE.sub(_ANYTHING, text)
                path.write_text(text, encoding="utf-8")
            # Envoys that a policy does not touch are rendered alike, and validated once.
            text = text.replace(f"{directory}/{number}/", "")
            found.setdefault(_without_secrets(text, site.trace_key), path)
    return found


def _without_secrets(text: str, trace_key: str) -> str:
    """As every run renders it: each makes keys of its own."""
    return text.replace(trace_key, "TRACE_KEY") if trace_key else text


def keys(texts: Mapping[str, Path]) -> dict[str, Path]:
    """Those configurations by what their validity depends on: the text, Envoy, the module, and Python where that is in it.

    Raises:
        OSError: nothing says what is installed, or there is no git.
        subprocess.CalledProcessError: this is no repository.
    """
    installed = check_cache.environment(ROOT)
    python = check_cache.Tree(ROOT).digest(_PYTHON)
    own = Path(__file__).read_text(encoding="utf-8")
    return {
        check_cache.key(text, installed, own, python if _SERVICE.search(text) else ""): path
        for text, path in texts.items()
    }


def main() -> int:
    """Validate all; 1 when one is not valid."""
    passed = check_cache.Passed(CACHE)
    with tempfile.TemporaryDirectory() as directory:
        texts = render(Path(directory))
        try:
            configs = keys(texts)
        except (OSError, subprocess.CalledProcessError):
            configs = texts
        left = {key: path for key, path in configs.items() if not passed.has(NAME, key)}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = dict(zip(left, pool.map(validate, left.values()), strict=True))
    if configs is not texts:
        passed.add(NAME, [key for key, problem in found.items() if not problem])
    print("\n".join(problem for problem in found.values() if problem))
    print(f"{len(configs)} configurations, {len(left)} of them new", file=sys.stderr)
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
