"""What the steps from an image to a rollout ask of Docker, cosign and Helm; those say what they were asked for, and do nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import delivery
import images
import publish
import pytest
from chassis.version import __version__
from publish import PublishError

DIGEST = "sha256:" + "5" * 64
_PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> "$SAID"
if [ -n "$KUBECONFIG" ]; then echo "$(stat -c %a "$KUBECONFIG") $(cat "$KUBECONFIG")" >> "$SAID"; fi
case "$*" in
    *"$FAILING"*) exit 7 ;;
    package*) touch "$8/backend.tgz" ;;
    *"imagetools inspect"*:1.2.3) echo "{\\"digest\\": \\"$AFTER\\"}" ;;
    *"imagetools inspect"*) echo '{"digest": "DIGEST"}' ;;
esac
"""


class Programs:
    """Stand-ins, and what they were asked for."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self._said = place / "said"
        for name in ("docker", "cosign", "helm"):
            (place / name).write_text(_PROGRAM.replace("DIGEST", DIGEST), encoding="utf-8")
            (place / name).chmod(0o755)
        patch.setattr(delivery, "prepare", lambda: None)
        patch.setattr(delivery, "BIN", place)
        for name, value in (("PATH", f"{place}:{os.environ['PATH']}"), ("SAID", str(self._said)), ("FAILING", "nothing"),
                            ("AFTER", DIGEST), ("REGISTRY", "ghcr.io/Us/Shop")):  # fmt: skip
            patch.setenv(name, value)
        for name in ("GITHUB_OUTPUT", "KUBECONFIG", "TAG"):
            patch.delenv(name, raising=False)

    @property
    def said(self) -> list[str]:
        return self._said.read_text(encoding="utf-8").splitlines() if self._said.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path, monkeypatch)


def commit() -> str:
    return f"git-{images.said('git', 'rev-parse', 'HEAD')[:12]}"


def test_images_are_pushed_by_the_commit_and_their_digests_told(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    publish.publish()
    for name in images.IMAGES:
        assert f"docker tag {name} ghcr.io/us/shop/{name}:{commit()}" in programs.said
        assert f"docker push --quiet ghcr.io/us/shop/{name}:{commit()}" in programs.said
    told = (tmp_path / "output").read_text(encoding="utf-8")
    assert told == f"registry=ghcr.io/us/shop\nservices={DIGEST}\noperations={DIGEST}\n"


def test_what_is_signed_and_verified_is_a_digest(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY", "^https://github.com/us/shop/.*main$")
    publish.sign()
    publish.verify()
    asked = [line for line in programs.said if line.startswith("cosign")]
    assert asked == [
        *(f"cosign sign --yes ghcr.io/us/shop/{name}@{DIGEST}" for name in images.IMAGES),
        *(
            f"cosign verify --certificate-identity-regexp ^https://github.com/us/shop/.*main$ "
            f"--certificate-oidc-issuer https://token.actions.githubusercontent.com ghcr.io/us/shop/{name}@{DIGEST}"
            for name in images.IMAGES
        ),
    ]


@pytest.mark.parametrize(("tag", "version"), [("", "-git-"), (f"v{__version__}", ""), ("v99.0.0", "-git-")])
def test_a_chart_has_the_version_on_its_tag_alone(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tag: str, version: str
) -> None:
    monkeypatch.setenv("TAG", tag)
    publish.chart()
    named = __version__ + (f"-{commit()}" if version else "")
    assert f"--version {named} --app-version {__version__}" in programs.said[0]
    assert programs.said[1].startswith("helm push ")
    assert programs.said[1].endswith("/backend.tgz oci://ghcr.io/us/shop/charts")
    assert programs.said[-1] == f"cosign sign --yes ghcr.io/us/shop/charts/backend@{DIGEST}"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("RELEASE", "shop"),
        ("NAMESPACE", "live"),
        ("VALUES_TEXT", "a: 1"),
        ("KUBECONFIG_TEXT", "who we are"),
    ):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("cluster")
def test_a_rollout_is_by_digest_is_waited_for_and_goes_back_by_itself(programs: Programs) -> None:
    publish.deploy()
    upgrade = next(line for line in programs.said if line.startswith("helm upgrade --install shop "))
    for part in ("--namespace live", "--rollback-on-failure", "--wait --wait-for-jobs", f"images.services.digest={DIGEST}",
                 f"images.operations.digest={DIGEST}", "images.registry=ghcr.io/us/shop"):  # fmt: skip
        assert part in upgrade
    assert "helm test shop --namespace live" in programs.said
    # Whoever else is on the machine cannot read it.
    assert "600 who we are" in programs.said
    assert not [line for line in programs.said if "who we are" in line and line != "600 who we are"]


@pytest.mark.usefixtures("cluster")
def test_a_rollback_is_helms(programs: Programs) -> None:
    publish.rollback()
    assert programs.said[0] == "helm rollback shop --namespace live --wait --timeout 15m"


@pytest.mark.usefixtures("programs")
def test_a_promotion_that_changes_the_digest_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "v1.2.3")
    publish.promote()
    monkeypatch.setenv("AFTER", "sha256:another")
    with pytest.raises(PublishError, match=r"backend-services:1\.2\.3 is sha256:another, and not sha256:5"):
        publish.promote()


def test_a_promotion_builds_nothing(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "main")
    publish.promote()
    created = [line for line in programs.said if "imagetools create" in line]
    assert created == [
        f"docker buildx imagetools create --tag ghcr.io/us/shop/{name}:main ghcr.io/us/shop/{name}@{DIGEST}"
        for name in images.IMAGES
    ]
    assert all("imagetools" in line for line in programs.said)


def test_what_fails_and_what_is_not_said_fails_the_step(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PublishError, match="IDENTITY is not set"):
        publish.verify()
    monkeypatch.setenv("FAILING", "sign --yes")
    with pytest.raises(PublishError, match="cosign sign --yes has failed with 7"):
        publish.sign()
    monkeypatch.delenv("REGISTRY")
    with pytest.raises(PublishError, match="REGISTRY is not set"):
        publish.publish()
    assert programs.said


def test_every_step_is_a_target_of_the_makefile() -> None:
    for step in publish.STEPS:
        target = "publish-chart" if step == "chart" else step
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=publish.ROOT, capture_output=True, encoding="utf-8", check=True
        )
        assert f"tools/publish.py {step}" in done.stdout
