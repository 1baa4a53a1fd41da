"""The images: what is in them, and what is not."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest
from engine import ROOT, Engine
from mesh.compose import places
from mesh.topology import SERVICES

OURS = ("backend-services", "backend-operations")
MOST_MEGABYTES = {"backend-services": 350, "backend-operations": 250}
# What a container is run with that may do nothing: as Compose and Kubernetes run it.
CONFINED = (
    "run",
    "--rm",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--network",
    "none",
)
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")
_LISTING = """
import json, os, stat
found = {}
for directory, _, names in os.walk("/"):
    if directory.startswith(("/proc", "/sys", "/dev")):
        continue
    for name in names:
        path = os.path.join(directory, name)
        found[path] = stat.S_IMODE(os.lstat(path).st_mode)
print(json.dumps(found))
"""


def python(engine: Engine, image: str, script: str) -> str:
    """What a script says in a container that may do nothing."""
    return engine.docker(*CONFINED, "--entrypoint", "/app/bin/python", image, "-c", script).stdout


@pytest.mark.parametrize("image", OURS)
def test_it_is_small_and_says_what_it_is(images: Engine, image: str) -> None:
    found = images.inspect(image)
    megabytes = found["Size"] / 1_000_000
    print(f"{image}: {megabytes:.0f} MB")
    assert megabytes < MOST_MEGABYTES[image]
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == image
    assert re.fullmatch("[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert labels.keys() >= {f"org.opencontainers.image.{name}" for name in ("version", "licenses", "description")}


@pytest.mark.parametrize("image", OURS)
def test_it_runs_as_a_user_by_number_and_needs_no_shell(images: Engine, image: str) -> None:
    settings = images.inspect(image)["Config"]
    assert settings["User"] == f"{places.USER}:{places.USER}"
    # A list is run as it is; a text would be run by a shell.
    assert settings["Entrypoint"][0].startswith("/app/bin/")
    if image == "backend-services":
        assert settings["Healthcheck"]["Test"] == ["CMD", "/app/bin/python", "-m", "chassis.probe"]
        assert settings["StopSignal"] == "SIGTERM"


@pytest.mark.parametrize("image", OURS)
def test_nothing_is_in_it_that_builds_installs_or_tests(images: Engine, image: str) -> None:
    found = json.loads(python(images, image, _LISTING))
    programs = {
        Path(path).name
        for path in found
        if path.startswith(("/bin/", "/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/app/bin/"))
    }
    assert not {
        name
        for name in programs
        if re.fullmatch(r"(ba|da|z|)sh|busybox|apt.*|dpkg.*|pip.*|gcc.*|cc|ld|make|perl.*|git|curl|wget", name)
    }
    packages = {path.split("/site-packages/")[1].split("/")[0] for path in found if "/site-packages/" in path}
    assert not packages & {"pip", "setuptools", "hatchling", "pytest", "mypy", "ruff", "devstack"}
    assert not [path for path in found if "/tests/" in path]
    # Nobody becomes another by running one.
    assert not [path for path, mode in found.items() if mode & 0o6000]


def test_every_service_of_the_table_is_in_it_and_whatever_it_loads(images: Engine) -> None:
    imports = "; ".join(f"import {service.package}.main" for service in SERVICES)
    told = python(images, "backend-services", f"import chassis.launch; {imports}; print(chassis.launch.libpython())")
    assert re.fullmatch(r"/\S+/libpython3\.\d+\.so\.1\.0\n", told)
    module = "import ctypes, os; print(os.path.realpath('/app/pyvoy.so'))"
    assert "/pyvoy/" in python(images, "backend-services", module)


def test_operations_knows_its_commands_and_has_every_migration(images: Engine) -> None:
    helped = images.docker(*CONFINED, "backend-operations", "--help").stdout
    assert all(name in helped for name in ("render", "migrate", "streams", "prepare", "certificates"))
    there = python(
        images,
        "backend-operations",
        "import pathlib, json; print(json.dumps(sorted(str(p) for p in pathlib.Path('services').rglob('*.sql'))))",
    )
    expected = [
        str(path.relative_to(ROOT))
        for service in SERVICES
        if service.database
        for path in (ROOT / service.folder / service.database.schema / "migrations").glob("*.sql")
    ]
    assert json.loads(there) == sorted(expected)


@pytest.mark.parametrize("image", OURS)
def test_no_secret_of_its_build_is_in_any_layer(images: Engine, image: str, canary: str, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    images.docker("save", "--output", str(archive), image)
    searched = 0
    with tarfile.open(archive) as layers:
        for layer in layers:
            if not layer.name.endswith("layer.tar"):
                continue
            with tarfile.open(fileobj=layers.extractfile(layer)) as files:
                for file in files:
                    content = files.extractfile(file).read() if file.isfile() else b""  # type: ignore[union-attr]
                    searched += len(content)
                    assert canary.encode() not in content, file.name
                    assert not _PRIVATE_KEY.search(content), file.name
                    assert Path(file.name).name not in ("pip.conf", "id_rsa", ".netrc", ".env"), file.name
    assert searched > 50_000_000
    described = json.dumps(images.inspect(image)) + images.docker("history", "--no-trunc", image).stdout
    assert canary not in described


def test_one_commit_makes_the_same_files(images: Engine) -> None:
    """The digests of the layers; an image's own has the time of its build in it, with the engine that Debian has."""
    images.build("backend-again", "services.Dockerfile", "--no-cache")
    first, again = (images.inspect(name)["RootFS"]["Layers"] for name in ("backend-services", "backend-again"))
    assert again == first


def test_no_frontend_of_the_builder_has_to_be_pulled() -> None:
    for file in (ROOT / "deploy/docker").glob("*.Dockerfile"):
        assert "syntax=" not in file.read_text(encoding="utf-8"), file
