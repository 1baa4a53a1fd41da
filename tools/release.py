"""What a release has beside its images, in dist/: `make changelog`, `make wheels`, `make sbom`, and `make release`, which publishes them.

tag         that $TAG is our version, and its commit one of main
changelog   dist/changelog.md: what has changed since the release before, of the messages of commits
wheels      dist/wheels: our distributions
sbom        dist/sbom: what is in each image, as CycloneDX, of its lock
release     a release on GitHub with all of it, by the tag
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import bootstrap
import delivery
import images
from chassis.version import __version__

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "dist"
CHANGELOG = OUT / "changelog.md"


class ReleaseError(Exception):
    """There can be no such release; the message says why."""


def tag() -> None:
    """Fail unless what is checked out is a release: tagged by its version, and on main."""
    if (named := os.environ.get("TAG", "")) != f"v{__version__}":
        raise ReleaseError(
            f"the tag is {named or 'not set'}, and the version {__version__} (libs/chassis/src/chassis/version.py)"
        )
    done = subprocess.run(["git", "merge-base", "--is-ancestor", "HEAD", "origin/main"], cwd=ROOT, check=False)
    if done.returncode:
        raise ReleaseError("the commit is not on main, whose checks it has to have passed")


def changelog() -> None:
    """Write what has changed since the last tag; all of it, when there is none."""
    delivery.prepare()
    OUT.mkdir(exist_ok=True)
    command = [
        str(delivery.BIN / "git-cliff"),
        "--config",
        "tools/changelog.toml",
        "--offline",
        "--output",
        str(CHANGELOG),
    ]
    tagged = os.environ.get("TAG", "")
    # On a tag, what that has; before, what the next will have.
    which = (
        ["--current"]
        if tagged and images.said("git", "tag", "--points-at", "HEAD")
        else ["--unreleased", "--tag", f"v{__version__}"]
    )
    subprocess.run([*command, *which], cwd=ROOT, check=True)


def wheels() -> None:
    """Build our distributions, the same bytes for the same commit."""
    place = OUT / "wheels"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": images.said("git", "log", "-1", "--format=%ct")}
    for name in bootstrap.distributions():
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place)]
        subprocess.run(command, cwd=ROOT / name, env=environment, stdout=subprocess.DEVNULL, check=True)


def sbom() -> None:
    """Write what each image is made of, as its lock says it: names, versions, hashes."""
    delivery.prepare()
    place = OUT / "sbom"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for image in images.IMAGES:
        lock = f"deploy/docker/{image.removeprefix('backend-')}.lock"
        made = place / f"{image}.cdx.json"
        command = [
            str(delivery.BIN / "cyclonedx-py"),
            "requirements",
            lock,
            "--output-reproducible",
            "--sv",
            "1.6",
            "--of",
            "JSON",
        ]
        subprocess.run([*command, "--outfile", str(made)], cwd=ROOT, check=True)
        document = json.loads(made.read_text(encoding="utf-8"))
        # Of what they are the parts.
        document["metadata"]["component"] = {
            "type": "container",
            "bom-ref": image,
            "name": image,
            "version": __version__,
        }
        made.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def release() -> None:
    """Publish it, with everything that is in dist/."""
    files = [*sorted((OUT / "wheels").glob("*.whl")), *sorted((OUT / "sbom").glob("*.json"))]
    named = os.environ.get("TAG", "")
    command = ["gh", "release", "create", named, "--verify-tag", "--title", named, "--notes-file", str(CHANGELOG)]
    subprocess.run([*command, *map(str, files)], cwd=ROOT, check=True)


STEPS: Mapping[str, Callable[[], None]] = {step.__name__: step for step in (tag, changelog, wheels, sbom, release)}


def main() -> None:
    """Take the step that is named."""
    try:
        STEPS[sys.argv[1]]()
    except (ReleaseError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
