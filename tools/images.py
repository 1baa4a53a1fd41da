"""Builds the images of this commit, `make images`: deploy/docker, with what pip is configured for as secrets of the builds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pip_settings
from chassis.version import __version__

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {"backend-services": "services.Dockerfile", "backend-operations": "operations.Dockerfile"}
# Of pip's settings, those that say where packages are had from; directories of this machine are not in a build.
_INDEX = ("index-url", "extra-index-url", "proxy", "trusted-host", "default-timeout")


def secrets(directory: Path, mark: str = "") -> dict[str, Path]:
    """Files with pip's settings and the certificates of its index, by the ids that the builds know them by.

    Args:
        directory: to write them to.
        mark: a comment in each of them.
    """
    found = pip_settings.read(sys.executable)
    said = [f"{name} = {found[name]}" for name in _INDEX if name in found and "file:" not in found[name]]
    files = {"pip": directory / "pip.conf"}
    files["pip"].write_text("\n".join([f"# {mark}", "[global]", *said, ""]), encoding="utf-8")
    if (authority := Path(found.get("cert", ""))).is_file():
        files["ca"] = directory / "ca.pem"
        files["ca"].write_text(f"# {mark}\n{authority.read_text(encoding='utf-8')}", encoding="utf-8")
    return files


def arguments(name: str, file: str, given: Mapping[str, Path], base: str = "") -> list[str]:
    """What `docker` is told to build an image.

    Args:
        name: of the image.
        file: of deploy/docker.
        given: `secrets`.
        base: the image to begin with; the file's own when empty.
    """
    settings = {
        "SOURCE_DATE_EPOCH": said("git", "log", "-1", "--format=%ct"),
        "REVISION": said("git", "rev-parse", "HEAD"),
        "VERSION": __version__,
    } | ({"BASE": base} if base else {})
    told = [part for item in settings.items() for part in ("--build-arg", "=".join(item))]
    told += [part for identity, path in given.items() for part in ("--secret", f"id={identity},src={path}")]
    return ["build", "--network", "host", "--file", str(ROOT / "deploy/docker" / file), "--tag", name, *told]


def said(*command: str) -> str:
    """What a command prints, in the repository."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout.strip()


def main() -> int:
    """0 when both are built. $BASE is the image to begin with."""
    docker = shutil.which("docker")
    if docker is None:
        print("there is no docker on the path; docs/deploy.md has what needs none", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as directory:
        given = secrets(Path(directory))
        for name, file in IMAGES.items():
            command = [docker, *arguments(name, file, given, os.environ.get("BASE", "")), str(ROOT)]
            environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
            if subprocess.run(command, env=environment, check=False).returncode:
                print(f"{name} could not be built", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
