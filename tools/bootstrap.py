"""Create or refresh `.venv` from the hashed locks. Standard library only; run by `make`.

Does nothing when the environment already matches the locks. Python is embedded in Envoy, so the interpreter
needs a shared libpython: one found on PATH is used, else uv is asked for one, else a message says what to install.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "bootstrap.sha256"
LOCKS = [ROOT / "bootstrap.lock", ROOT / "requirements.lock"]
DISTRIBUTIONS = [
    "libs/contracts",
    "libs/chassis",
    "services/user",
    "services/order",
    "services/bff",
    "services/limiter",
    "devstack",
]
SUPPORTED = [(3, minor) for minor in range(11, 15)]

REMEDY = """\
No Python 3.11 to 3.14 with a shared libpython was found, and uv could not bring one.
Python runs inside Envoy here, which needs libpython as a shared library. Install one:
  Debian, Ubuntu:  apt-get install python3 python3-venv libpython3-dev
  Fedora:          dnf install python3 python3-libs
  macOS:           brew install python@3.12
then run make again (PYTHON=/path/to/python make … picks a particular one)."""

PROBE = """
import json, os, sys, sysconfig
v = sysconfig.get_config_var
name = v("INSTSONAME") or v("LDLIBRARY") or ""
directories = [v("LIBDIR") or "", os.path.join(v("LIBDIR") or "", v("MULTIARCH") or ""), v("LIBPL") or ""]
framework = v("PYTHONFRAMEWORKPREFIX") or ""
is_library = ".so" in name or ".dylib" in name
shared = bool(framework) or (is_library and any(os.path.exists(os.path.join(d, name)) for d in directories))
print(json.dumps({"version": list(sys.version_info[:2]), "shared": shared, "executable": sys.executable}))
"""


def usable(python: str) -> str | None:
    """Return the real path of `python` when it is supported and has a shared libpython."""
    try:
        found = json.loads(subprocess.run([python, "-c", PROBE], capture_output=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return found["executable"] if found["shared"] and tuple(found["version"]) in SUPPORTED else None


def find_interpreter() -> str | None:
    """The interpreter named by $PYTHON, else the running one, else any on PATH."""
    names = [os.environ.get("PYTHON", ""), sys.executable, "python3"]
    names += [f"python{major}.{minor}" for major, minor in reversed(SUPPORTED)]
    candidates = (shutil.which(name) for name in names if name)
    return next(filter(None, map(usable, filter(None, candidates))), None)


def install_uv(python: str, target: Path) -> Path:
    """Install the pinned uv into the virtual environment `target` and return its path."""
    subprocess.run([python, "-m", "venv", "--clear", str(target)], check=True)
    pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "bootstrap.lock")], check=True)
    return target / "bin" / "uv"


def managed_interpreter() -> str | None:
    """Ask uv for a Python with a shared libpython (its builds all have one)."""
    scratch = ROOT / ".venv-bootstrap"
    try:
        uv = install_uv(sys.executable, scratch)
        subprocess.run([str(uv), "python", "install", "3.12"], check=True)
        found = subprocess.run(
            [str(uv), "python", "find", "--managed-python", "3.12"], capture_output=True, check=True, text=True
        )
        return usable(found.stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def wanted_stamp() -> str:
    digest = hashlib.sha256()
    for path in [*LOCKS, *(ROOT / d / "pyproject.toml" for d in DISTRIBUTIONS)]:
        digest.update(path.read_bytes())
    # An environment records its own path in scripts and .pth files: a moved clone needs a new one.
    digest.update(str(ROOT).encode())
    return digest.hexdigest()


def main() -> int:
    """Bring `.venv` up to date; 0 when it is."""
    stamp = wanted_stamp()
    if STAMP.exists() and STAMP.read_text() == stamp and (VENV / "bin" / "python").exists():
        return 0
    print("Preparing .venv from the hashed locks (once) …", flush=True)
    python = find_interpreter() or managed_interpreter()
    if python is None:
        print(REMEDY, file=sys.stderr)
        return 1
    uv = install_uv(python, VENV)
    pip = [str(uv), "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python")]
    subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements.lock")], check=True)
    editable = [argument for name in DISTRIBUTIONS for argument in ("--editable", str(ROOT / name))]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", *editable], check=True)
    STAMP.write_text(stamp)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"the environment could not be prepared: {error}\n"
            "On Debian and Ubuntu the venv module is a package of its own: apt-get install python3-venv"
        )
