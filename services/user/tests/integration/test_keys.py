"""`python -m user.keys`, by which whoever has no `backend` command has the keys that sign."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def keys(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"SIGNING_KEYS_DIR": str(directory / "keys"), "JWKS_FILE": str(directory / "public" / "jwks.json")}
    return subprocess.run(
        [sys.executable, "-m", "user.keys", *arguments],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def published(directory: Path) -> list[str]:
    return [key["kid"] for key in json.loads((directory / "public" / "jwks.json").read_text(encoding="utf-8"))["keys"]]


def test_a_key_is_made_once_and_its_public_half_is_published(tmp_path: Path) -> None:
    first = keys(tmp_path, "ensure")
    assert (first.returncode, first.stderr) == (0, "")
    (kid,) = published(tmp_path)
    assert first.stdout.startswith(f"signing    {kid}  made ")
    assert keys(tmp_path, "ensure").stdout == first.stdout


def test_a_new_key_is_published_and_the_old_one_can_be_ended(tmp_path: Path) -> None:
    keys(tmp_path, "ensure")
    (old,) = published(tmp_path)
    rotated = keys(tmp_path, "rotate").stdout.splitlines()
    assert rotated[0].startswith("the new key signs from ")
    assert [line.split()[0] for line in rotated[2:]] == ["signing", "published"]
    told = json.loads(rotated[1])
    assert (told["event"], told["action"], told["subject"]) == ("audit", "key.rotated", f"key/{published(tmp_path)[1]}")
    assert told["actor"].startswith("operator/")
    revoked = keys(tmp_path, "revoke").stdout.splitlines()
    assert revoked[0] == f"{old} is revoked"
    told = json.loads(revoked[1])
    assert (told["action"], told["subject"]) == ("key.revoked", f"key/{old}")
    assert old not in published(tmp_path)
    unknown = keys(tmp_path, "revoke", old)
    assert (unknown.returncode, unknown.stderr) == (1, f"there is no key {old}\n")


def test_what_is_missing_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "user.keys", "show"], env={}, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert "SIGNING_KEYS_DIR" in done.stderr
    assert "JWKS_FILE" in done.stderr
    assert "Traceback" not in done.stderr
