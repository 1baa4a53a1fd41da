"""What a release has beside its images: what is in them, what has changed, and our distributions."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from pathlib import Path

import bootstrap
import images
import pytest
import release
from chassis.version import __version__
from release import ReleaseError


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(release, "OUT", tmp_path / "dist")
    monkeypatch.setattr(release, "CHANGELOG", tmp_path / "dist/changelog.md")
    return tmp_path / "dist"


def test_an_sbom_names_every_locked_package_of_its_image_with_its_hashes(out: Path) -> None:
    release.sbom()
    assert {path.name for path in (out / "sbom").iterdir()} == {f"{image}.cdx.json" for image in images.IMAGES}
    for image in images.IMAGES:
        lock = (release.ROOT / f"deploy/docker/{image.removeprefix('backend-')}.lock").read_text(encoding="utf-8")
        locked = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE))
        document = json.loads((out / f"sbom/{image}.cdx.json").read_text(encoding="utf-8"))
        assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
        assert document["metadata"]["component"] == {
            "type": "container", "bom-ref": image, "name": image, "version": __version__,
        }  # fmt: skip
        assert {part["name"]: part["version"] for part in document["components"]} == locked
        assert len(locked) > 40
        hashes = [
            one["content"]
            for part in document["components"]
            for file in part["externalReferences"]
            for one in file["hashes"]
        ]
        assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", lock))


def test_a_changelog_has_what_is_new_mended_or_breaks_and_nothing_else(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(images, "ROOT", tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/changelog.toml").write_text(
        (Path(release.__file__).parent / "changelog.toml").read_text(encoding="utf-8"), encoding="utf-8"
    )

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@shop.example", *arguments], cwd=tmp_path, check=True
        )

    def commit(message: str) -> None:
        git("commit", "--quiet", "--allow-empty", "--message", message)

    git("init", "--quiet", "--initial-branch", "main")
    commit("feat: before the release before")
    git("tag", "v0.0.1")
    for message in ("feat(order): refunds", "fix: a race", "perf: a faster read", "docs: a page", "Merge of something",
                    "refactor(api)!: orders have no notes\n\nBREAKING CHANGE: `note` is gone"):  # fmt: skip
        commit(message)
    release.changelog()
    said = re.sub(r" \([0-9a-f]{7}\)", "", (out / "changelog.md").read_text(encoding="utf-8"))
    assert said.startswith(f"# {__version__}")
    assert re.findall(r"^(##? .*|- .*)$", said.partition("\n")[2], re.MULTILINE) == [
        "## What breaks", "- **api**: `note` is gone",
        "## New", "- **order**: refunds",
        "## Mended", "- a race",
        "## Faster", "- a faster read",
    ]  # fmt: skip
    # On the tag itself, the same; what comes after it is the next one's.
    git("tag", f"v{__version__}")
    monkeypatch.setenv("TAG", f"v{__version__}")
    release.changelog()
    assert "**order**: refunds" in (out / "changelog.md").read_text(encoding="utf-8")
    assert "before the release before" not in (out / "changelog.md").read_text(encoding="utf-8")


def test_our_distributions_are_wheels_of_one_version_and_the_same_twice(out: Path) -> None:
    release.wheels()
    made = {path.name: path.read_bytes() for path in (out / "wheels").iterdir()}
    assert len(made) == len(bootstrap.distributions())
    assert all(re.fullmatch(rf"backend_\w+-{re.escape(__version__)}-py3-none-any\.whl", name) for name in made)
    with zipfile.ZipFile(out / f"wheels/backend_devstack-{__version__}-py3-none-any.whl") as wheel:
        assert "devstack/cli.py" in wheel.namelist()
        assert not [name for name in wheel.namelist() if "/tests/" in name]
    release.wheels()
    assert {path.name: path.read_bytes() for path in (out / "wheels").iterdir()} == made


@pytest.mark.parametrize("tag", ["", "v99.0.0", __version__])
def test_a_tag_that_is_not_our_version_is_no_release(monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.setenv("TAG", tag)
    with pytest.raises(ReleaseError, match=f"and the version {re.escape(__version__)}"):
        release.tag()


def test_a_commit_that_is_not_on_main_is_no_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@shop.example", *arguments], cwd=tmp_path, check=True
        )

    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setenv("TAG", f"v{__version__}")
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "feat: x")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    release.tag()
    git("commit", "--quiet", "--allow-empty", "--message", "feat: y")
    with pytest.raises(ReleaseError, match="not on main"):
        release.tag()
