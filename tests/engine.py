"""A Docker engine of its own: a daemon on a socket and in a directory of this run, which leaves nothing when it ends.

Debian's packages are enough for it (`PACKAGES`). Images cannot be had from anywhere here, so the one that all others begin with is
made of Debian's packages, too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import delivery
import httpx
import images
import psutil

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("docker.io", "containerd", "runc", "iptables", "debootstrap")
_PROGRAMS = ("dockerd", "debootstrap", "iptables-save")
# Debian's, whatever else there is on the path.
_DOCKER = "/usr/bin/docker"
_START_SECONDS = 60
BASE = "backend-base:proof"
_DEBIAN = "bookworm"
_OF_BASE = ("python3", "python3-venv", "libpython3.11", "ca-certificates")


class EngineUnavailable(Exception):  # noqa: N818 - a state of the machine, which a test is skipped for
    """There is no engine on this machine; the message says why."""


@dataclass(frozen=True)
class Engine:
    """A running daemon."""

    directory: Path
    # The settings of pip, and the authority of its index, as secrets of a build; with marks that no image may have.
    secrets: Mapping[str, Path]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "1"}

    @property
    def socket(self) -> Path:
        return self.directory / "docker.sock"

    def docker(self, *arguments: str, check: bool = True, given: str = "") -> subprocess.CompletedProcess[str]:
        """Docker's command line."""
        done = subprocess.run(
            [_DOCKER, *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done

    def compose(
        self, project: str, settings: Mapping[str, str], *arguments: str, given: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Compose's, for the compose.yaml of the repository."""
        done = subprocess.run(
            [str(delivery.BIN / "docker-compose"), "--project-name", project, "--progress", "plain", *arguments],
            cwd=ROOT,
            env={**self.environment, **settings},
            input=given,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert not check or done.returncode == 0, f"compose {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done

    def inspect(self, name: str) -> dict[str, Any]:
        """What there is to be said of a container or an image."""
        (found,) = json.loads(self.docker("inspect", name).stdout)
        return dict(found)

    def asked(self, path: str) -> Any:
        """The answer to a question that the command line does not know."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), timeout=30) as client:
            return client.get(f"http://engine{path}").raise_for_status().json()

    def base(self) -> None:
        """The image that all others begin with: Debian, with its Python."""
        if self.docker("image", "inspect", BASE, check=False).returncode == 0:
            return
        root = self.directory / "base"
        # Their packages come over the same way as this machine's own.
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(_OF_BASE)}", _DEBIAN, str(root)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                [_DOCKER, "import", "-", BASE],
                env=self.environment,
                stdin=tar.stdout,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        shutil.rmtree(root)

    def build(self, name: str, file: str, *arguments: str) -> None:
        """An image of deploy/docker."""
        self.docker(*images.arguments(name, file, self.secrets, BASE), "--progress", "plain", *arguments, str(ROOT))


def require() -> None:
    """Have what an engine needs, from Debian's packages where it is missing.

    Raises:
        EngineUnavailable: it cannot be had.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise EngineUnavailable("a Docker engine of its own needs root on Linux")
    if not all(map(shutil.which, _PROGRAMS)):
        if shutil.which("apt-get") is None:
            raise EngineUnavailable(f"there is no {', '.join(_PROGRAMS)}, and no apt-get that would bring it")
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            # RUNLEVEL: none of Debian's own is started.
            settings = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(
                ["apt-get", "-qq", *command], env=settings, capture_output=True, encoding="utf-8", check=False
            )
            if done.returncode:
                raise EngineUnavailable(f"apt-get {' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def running(secrets: Mapping[str, Path]) -> Iterator[Engine]:
    """An engine, for as long as it is used.

    Raises:
        EngineUnavailable: it does not start.
    """
    require()
    # Below a short path: its socket's has a bound.
    directory = Path(tempfile.mkdtemp(prefix="backend-engine-"))
    rules = images.said("iptables-save") + "\n"
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii")
    made = Engine(directory, secrets)
    command = [
        "dockerd", "--host", f"unix://{made.socket}", "--data-root", str(directory / "data"),
        "--exec-root", str(directory / "exec"), "--pidfile", str(directory / "pid"), "--bridge", "none",
    ]  # fmt: skip
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(made, daemon)
            yield made
        finally:
            _stop(daemon)
            if "DOCKER" not in rules:
                subprocess.run(["iptables-restore"], input=rules, encoding="utf-8", check=True)
                Path("/proc/sys/net/ipv4/ip_forward").write_text(forwarding, encoding="ascii")
            _remove(directory)


def _wait(made: Engine, daemon: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while made.docker("version", check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > give_up:
            lines = (made.directory / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise EngineUnavailable(f"dockerd does not start here: {lines[-1] if lines else 'it says nothing'}")
        time.sleep(0.2)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    """End a daemon and what it has started: containerd, and whatever containers are left."""
    started = psutil.Process(daemon.pid).children(recursive=True) if daemon.poll() is None else []
    daemon.terminate()
    try:
        daemon.wait(60)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    for process in psutil.wait_procs(started, timeout=10)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _remove(directory: Path) -> None:
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for place in sorted((place for place in mounted if place.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=True)
    shutil.rmtree(directory)


def build_all(engine: Engine) -> None:
    """Everything that compose.yaml runs but the profile `observability`."""
    engine.base()
    engine.build("backend-services", "services.Dockerfile")
    engine.build("backend-operations", "operations.Dockerfile")
    for name in ("postgres", "valkey", "nats"):
        engine.build(f"backend-{name}", "backing.Dockerfile", "--target", name)


def names(of: Sequence[str] = ("services", "operations", "postgres", "valkey", "nats")) -> dict[str, str]:
    """The variables by which compose.yaml knows them."""
    return {f"{name.upper()}_IMAGE": f"backend-{name}" for name in of}
