"""Create or refresh `.venv` from the hashed locks. Standard library only; run by `make` and `./backend`.

Does nothing when the environment already matches the locks and its Python. Python is embedded in Envoy, so the
interpreter needs a shared libpython: $PYTHON if it is set, else one found on PATH, else uv is asked for one, else a
message says what to install. Progress goes to stderr: what `./backend` prints may be for a program.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pip_settings

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "bootstrap.json"
LOCKS = [ROOT / "bootstrap.lock", ROOT / "requirements.lock"]
# The version of all distributions.
VERSION = ROOT / "libs/chassis/src/chassis/version.py"
# Which services there are; read by whatever Python runs this.
MESH = ROOT / "libs/mesh/src"
SUPPORTED = [(3, minor) for minor in range(11, 15)]

NONE_FOUND = """\
No Python 3.11 to 3.14 with a shared libpython was found, and uv could not bring one."""
INSTALL = """\
Python runs inside Envoy here, which needs libpython as a shared library. Install one:
  Debian, Ubuntu:  apt-get install python3 python3-venv libpython3-dev
  Fedora:          dnf install python3 python3-libs
  macOS:           brew install python@3.12
then run this again (PYTHON=/path/to/python picks a particular one)."""
NO_VENV = """\
On Debian and Ubuntu the venv module is a package of its own: apt-get install python3-venv"""
NO_PACKAGES = """\
The cause is above. pip and uv fetch from the package index, or from what pip is configured for: index-url,
extra-index-url, find-links, cert, proxy and trusted-host of `pip config list` count for both, and so do the system's
certificates. Does `{python} -m pip download --no-deps uv` work? A certificate authority only for this:
SSL_CERT_FILE=/path/to/bundle.pem. uv's own settings (UV_…, uv.toml) go before pip's."""

PROBE = """
import json, os, sys, sysconfig
v = sysconfig.get_config_var
name = v("INSTSONAME") or v("LDLIBRARY") or ""
directories = [v("LIBDIR") or "", os.path.join(v("LIBDIR") or "", v("MULTIARCH") or ""), v("LIBPL") or ""]
framework = v("PYTHONFRAMEWORKPREFIX") or ""
is_library = ".so" in name or ".dylib" in name
shared = bool(framework) or (is_library and any(os.path.exists(os.path.join(d, name)) for d in directories))
base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
print(json.dumps([list(sys.version_info[:2]), shared, sys.executable, base]))
"""


class BootstrapError(Exception):
    """The environment cannot be prepared; the message says why and what to do."""


class Interpreter(NamedTuple):
    """A Python, as it describes itself."""

    version: tuple[int, int]
    # Whether it has a shared libpython.
    shared: bool
    executable: str
    # The real path of the installation's own executable: the same through links and virtual environments.
    base: str

    @property
    def fault(self) -> str:
        """Why it cannot be used; empty when it can."""
        if self.version not in SUPPORTED:
            return f"is Python {self.version[0]}.{self.version[1]}; 3.11 to 3.14 are supported"
        return "" if self.shared else "has no shared libpython"


def probe(python: str) -> Interpreter | None:
    """What this program is, or None when it is no Python that runs."""
    try:
        done = subprocess.run([python, "-c", PROBE], capture_output=True, check=True, stdin=subprocess.DEVNULL)
        version, shared, executable, base = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return Interpreter((version[0], version[1]), shared, executable, base)


def chosen_interpreter(name: str) -> Interpreter:
    """The interpreter named by $PYTHON.

    Raises:
        BootstrapError: it cannot be used.
    """
    path = shutil.which(name)
    found = probe(path) if path else None
    if found is None:
        raise BootstrapError(
            f"PYTHON={name}: " + (f"{path} is no working Python" if path else "there is no such program")
        )
    if found.fault:
        raise BootstrapError(f"PYTHON={name} {found.fault}.\n{INSTALL}")
    return found


def find_interpreter() -> Interpreter | None:
    """The running one, else any on PATH."""
    names = [sys.executable, "python3", *(f"python{major}.{minor}" for major, minor in reversed(SUPPORTED))]
    candidates = (probe(path) for path in map(shutil.which, filter(None, names)) if path)
    return next((found for found in candidates if found is not None and not found.fault), None)


def install_uv(python: str, target: Path) -> Path:
    """Install the pinned uv into the virtual environment `target` and return its path.

    Raises:
        BootstrapError: it cannot be made, or pip cannot install.
    """
    run([python, "-m", "venv", "--clear", str(target)], NO_VENV)
    own = str(target / "bin" / "python")
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(ROOT / "bootstrap.lock")], NO_PACKAGES.format(python=python))
    return target / "bin" / "uv"


def run(command: Sequence[str], remedy: str, environment: dict[str, str] | None = None) -> None:
    """One step; its output goes to stderr.

    Raises:
        BootstrapError: it failed.
    """
    try:
        subprocess.run(command, check=True, stdout=sys.stderr.fileno(), env=environment)
    except subprocess.CalledProcessError as error:
        raise BootstrapError(f"failed with status {error.returncode}: {shlex.join(command)}\n{remedy}") from None


def uv_environment(pip: dict[str, str]) -> dict[str, str]:
    """The environment in which uv reaches what pip reaches."""
    environment = dict(os.environ)
    added = pip_settings.for_uv(
        pip,
        environment,
        pip_settings.uv_toml(environment, ROOT),
        system_certificates=pip_settings.has_system_certificates(),
    )
    return environment | added


def managed_interpreter() -> Interpreter | None:
    """Ask uv for a Python with a shared libpython (its builds all have one)."""
    scratch = ROOT / ".venv-bootstrap"
    try:
        uv = install_uv(sys.executable, scratch)
        environment = uv_environment(pip_settings.read(str(scratch / "bin" / "python")))
        run([str(uv), "python", "install", "3.12"], "", environment)
        found = subprocess.run(
            [str(uv), "python", "find", "--managed-python", "3.12"], capture_output=True, check=True, encoding="utf-8"
        )
        return probe(found.stdout.strip())
    except (OSError, subprocess.CalledProcessError, BootstrapError) as error:
        print(error, file=sys.stderr)
        return None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def distributions() -> list[str]:
    """The folders of what is installed: the libraries, each service of the table, the development stack."""
    sys.path.insert(0, str(MESH))
    try:
        from mesh.topology import SERVICES
    finally:
        sys.path.remove(str(MESH))
    return ["libs/contracts", "libs/chassis", "libs/mesh", *(service.folder for service in SERVICES), "devstack"]


def wanted() -> dict[str, str]:
    """What the environment is made from, as digests: of others' packages, and of our own."""
    own = [VERSION, MESH / "mesh/topology.py"]
    own += [
        path for place in ("libs/*", "services/*", "devstack") for path in sorted(ROOT.glob(f"{place}/pyproject.toml"))
    ]
    # An environment records its own path in scripts and .pth files: a moved clone needs a new one.
    return {"locks": digest_of(LOCKS, str(ROOT)), "own": digest_of(own, "")}


def digest_of(paths: Sequence[Path], text: str) -> str:
    """A digest of the contents of these files and of a text."""
    digest = hashlib.sha256(text.encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept() -> dict[str, object]:
    """The stamp of the environment that is there; empty when there is none that was finished."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def is_usable(chosen: Interpreter | None) -> bool:
    """Whether the environment has what the locks say, on the Python that it was made with and that is asked for."""
    own = probe(str(VENV / "bin" / "python"))
    if own is None:
        return False
    now, then = stamp_of(own), kept()
    return all(then.get(part) == now[part] for part in ("locks", "python", "version")) and (
        chosen is None or chosen.base == own.base
    )


def is_current(chosen: Interpreter | None) -> bool:
    """Whether the environment is usable, and has our own distributions as they are now."""
    return kept().get("own") == wanted()["own"] and is_usable(chosen)


def stamp_of(python: Interpreter) -> dict[str, object]:
    """What is written into a finished environment. It has the version, because a newer Python in the same place sees no packages."""
    return {**wanted(), "python": python.base, "version": list(python.version)}


def prepare() -> None:
    """Bring `.venv` up to date.

    Raises:
        BootstrapError: it cannot be.
    """
    name = os.environ.get("PYTHON", "")
    chosen = chosen_interpreter(name) if name else None
    if is_current(chosen):
        return
    if not is_usable(chosen):
        make(chosen)
    install_own()


def make(chosen: Interpreter | None) -> None:
    """A new environment with everything of the locks.

    Raises:
        BootstrapError: it cannot be had.
    """
    print("Preparing .venv from the hashed locks (once) …", file=sys.stderr, flush=True)
    python = chosen or find_interpreter() or managed_interpreter()
    if python is None or python.fault:
        raise BootstrapError(f"{NONE_FOUND}\n{INSTALL}")
    install_uv(python.executable, VENV)
    remedy = NO_PACKAGES.format(python=python.executable)
    uv_pip("install", "--require-hashes", "-r", str(ROOT / "requirements.lock"), remedy=remedy)


def install_own() -> None:
    """Our own distributions, in place, and none that is not ours any more; then the environment is finished.

    Raises:
        BootstrapError: one cannot be installed.
    """
    made = probe(str(VENV / "bin" / "python"))
    if made is None:
        raise BootstrapError(f"{VENV / 'bin' / 'python'} does not run")
    now = distributions()
    editable = [argument for name in now for argument in ("--editable", str(ROOT / name))]
    uv_pip("install", "--no-deps", "--no-build-isolation", *editable, remedy="")
    for pth in VENV.glob("lib/python*/site-packages/_editable_impl_backend_*.pth"):
        make_readable(pth)
    then = kept().get("distributions")
    if gone := [Path(name).name for name in then if name not in now] if isinstance(then, list) else []:
        uv_pip("uninstall", *(f"backend-{name}" for name in gone), remedy="")
    STAMP.write_text(json.dumps({**stamp_of(made), "distributions": now}), encoding="utf-8")


def make_readable(pth: Path) -> None:
    """Name directories from where the file is if their whole paths have other letters than ASCII's.

    Until Python 3.13 these files are read in the locale's encoding, and with LC_ALL=C no Python of the environment would start.
    """
    text = pth.read_text(encoding="utf-8")
    if not text.isascii():
        pth.write_text("\n".join(os.path.relpath(line, pth.parent) for line in text.splitlines()), encoding="utf-8")


def uv_pip(command: str, *arguments: str, remedy: str) -> None:
    """What uv does to the environment, by pip's settings.

    Raises:
        BootstrapError: it failed.
    """
    own = str(VENV / "bin" / "python")
    pip = pip_settings.read(own)
    network = pip_settings.arguments(pip) if command == "install" else []
    run(
        [str(VENV / "bin" / "uv"), "pip", command, "--quiet", "--python", own, *network, *arguments],
        remedy,
        uv_environment(pip),
    )


def main() -> int:
    """0 when `.venv` is up to date."""
    try:
        prepare()
    except BootstrapError as failure:
        print(f"The environment could not be prepared: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
