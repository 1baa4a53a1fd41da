"""From images that were built to a rollout, step by step; each is a target of the Makefile, and the pipeline runs them in this order.

    publish     both images under the commit's name to $REGISTRY; their digests to $GITHUB_OUTPUT
    sign        both, without a key: by the identity of whoever runs this (Sigstore)
    verify      that both were signed by the pipeline of main ($IDENTITY)
    chart       the chart as an OCI artifact, signed as well
    deploy      the commit's images, by digest, as a Helm release; rolled back when it does not become ready
    rollback    to the release before
    promote     the same digests under one more name, $TAG

What is named by the commit is looked up in the registry each time: nothing but the commit is handed from one job to the next.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import delivery
import images
from chassis.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/backend"
_ISSUER = "https://token.actions.githubusercontent.com"
# Of a rollout: longer than the startup probes of the slowest service, one pod after the other.
_ROLLOUT = "15m"


class PublishError(Exception):
    """A step cannot be taken; the message says why."""


def publish() -> None:
    """Push what `make images` has built."""
    digests = {}
    for name in images.IMAGES:
        reference = _named(name, _of_commit())
        _run("docker", "tag", name, reference)
        _run("docker", "push", "--quiet", reference)
        digests[name] = _digest(name)
    lines = [f"registry={_registry()}"]
    lines += [f"{name.removeprefix('backend-')}={digest}" for name, digest in digests.items()]
    print("\n".join(lines))
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))


def sign() -> None:
    """Sign what the registry has under the commit's name."""
    for name in images.IMAGES:
        _run("cosign", "sign", "--yes", _by_digest(name))


def verify() -> None:
    """Fail unless the commit's images were signed by $IDENTITY, a regular expression for the address of a workflow."""
    for name in images.IMAGES:
        _run(
            "cosign", "verify", "--certificate-identity-regexp", _setting("IDENTITY"),
            "--certificate-oidc-issuer", _ISSUER, _by_digest(name),
        )  # fmt: skip


def chart() -> None:
    """Push the chart: under our version on its tag ($TAG), and else under one that names the commit."""
    version = __version__ if os.environ.get("TAG") == f"v{__version__}" else f"{__version__}-{_of_commit()}"
    with tempfile.TemporaryDirectory() as directory:
        _helm("package", str(CHART), "--version", version, "--app-version", __version__, "--destination", directory)
        (package,) = Path(directory).glob("*.tgz")
        _helm("push", str(package), f"oci://{_registry()}/charts")
    _run("cosign", "sign", "--yes", f"{_registry()}/charts/backend@{_inspect(f'charts/backend:{version}')}")


def deploy() -> None:
    """Bring a release to the commit: $RELEASE in $NAMESPACE, of the cluster of $KUBECONFIG_TEXT, with the values of $VALUES_TEXT."""
    with tempfile.TemporaryDirectory() as directory:
        values = Path(directory) / "values.yaml"
        values.write_text(_setting("VALUES_TEXT"), encoding="utf-8")
        chosen = [f"images.{name.removeprefix('backend-')}.digest={_digest(name)}" for name in images.IMAGES]
        _helm(
            "upgrade", "--install", _setting("RELEASE"), str(CHART), "--namespace", _setting("NAMESPACE"),
            "--values", str(values), "--set-string", ",".join([f"images.registry={_registry()}", *chosen]),
            "--rollback-on-failure", "--wait", "--wait-for-jobs", "--timeout", _ROLLOUT, environment=_cluster(Path(directory)),
        )  # fmt: skip
        _helm("test", _setting("RELEASE"), "--namespace", _setting("NAMESPACE"), environment=_cluster(Path(directory)))


def rollback() -> None:
    """Bring $RELEASE back to what it was before its last upgrade. Databases stay: a migration only adds."""
    with tempfile.TemporaryDirectory() as directory:
        _helm(
            "rollback", _setting("RELEASE"), "--namespace", _setting("NAMESPACE"), "--wait", "--timeout", _ROLLOUT,
            environment=_cluster(Path(directory)),
        )  # fmt: skip


def promote() -> None:
    """Name the commit's images $TAG too: nothing is built again, and the digest is the one that was tried. A version is named without its v."""
    tag = re.sub(r"^v(?=\d)", "", _setting("TAG"))
    for name in images.IMAGES:
        digest = _digest(name)
        _run("docker", "buildx", "imagetools", "create", "--tag", _named(name, tag), _by_digest(name))
        if (there := _inspect(f"{name}:{tag}")) != digest:
            raise PublishError(f"{name}:{tag} is {there}, and not {digest}")


def _of_commit() -> str:
    """What the commit that is checked out is called in the registry."""
    return f"git-{images.said('git', 'rev-parse', 'HEAD')[:12]}"


def _digest(name: str) -> str:
    return _inspect(f"{name}:{_of_commit()}")


def _by_digest(name: str) -> str:
    return f"{_registry()}/{name}@{_digest(name)}"


def _named(name: str, tag: str) -> str:
    return f"{_registry()}/{name}:{tag}"


def _inspect(name: str) -> str:
    """The digest of something in the registry."""
    said = _run("docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", f"{_registry()}/{name}")
    digest = json.loads(said)["digest"]
    if not isinstance(digest, str):
        raise PublishError(f"{name} has no digest")
    return digest


def _registry() -> str:
    # Registries know no capital letters, and owners of repositories may have them.
    return _setting("REGISTRY").lower()


def _setting(name: str) -> str:
    if value := os.environ.get(name, ""):
        return value
    raise PublishError(f"{name} is not set")


def _cluster(directory: Path) -> Mapping[str, str]:
    """What a client of the cluster is told; its credentials are in a file for as long as it runs."""
    path = directory / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(_setting("KUBECONFIG_TEXT"), encoding="utf-8")
    return {"KUBECONFIG": str(path)}


def _helm(*arguments: str, environment: Mapping[str, str] | None = None) -> None:
    delivery.prepare()
    _run(str(delivery.BIN / "helm"), *arguments, environment=environment)


def _run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """What a program prints.

    Raises:
        PublishError: there is no such program, or it has failed; what it said of it has been printed.
    """
    try:
        done = subprocess.run(
            command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, encoding="utf-8", check=True
        )
    except FileNotFoundError:
        raise PublishError(f"there is no {command[0]} on the path") from None
    except subprocess.CalledProcessError as error:
        raise PublishError(f"{' '.join(command[:3])} has failed with {error.returncode}") from None
    return done.stdout


STEPS: Mapping[str, Callable[[], None]] = {
    step.__name__: step for step in (publish, sign, verify, chart, deploy, rollback, promote)
}


def main() -> None:
    """Take the step that is named."""
    try:
        STEPS[sys.argv[1]]()
    except PublishError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
