"""Puts together what an image has at run time: `runtime_root.py OUT PLACE…` in the build stage; `--stamp OUT` after more was added.

Taken are the interpreter with its standard library, the places that are named (the virtual environment), the shared libraries
that any of these load, and the certificates of public authorities. Nothing else is: no shell, no package manager, no compiler,
no tests. What Debian packages the files are of is noted where scanners look for it (/var/lib/dpkg/status.d, as distroless
images have it). All times are SOURCE_DATE_EPOCH, and bytecode names its source by hash, so that one commit makes the same files.

Standard library only: it is run by whatever Python the base image has.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

USER = 10001
# Directories that a container mounts something over, and their modes; all are the user's.
MOUNT_POINTS = {"tmp": 0o700, "run": 0o700, "etc/backend": 0o700}
# Of the standard library: what is for developers, needs a display, or installs packages.
_LEFT_OUT = (
    "__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3", "pydoc_data",
    "site-packages", "dist-packages", "config-*",
)  # fmt: skip
# Of packages: what is compiled already, and their tests.
_NOT_RUN = ("__pycache__", "test", "tests", "*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.a")
_KEPT_AS_THEY_ARE = (
    "etc/ld.so.cache", "etc/ssl/certs/ca-certificates.crt", "etc/debian_version", "etc/os-release", "usr/lib/os-release",
)  # fmt: skip
_ELF = b"\x7fELF"
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def main() -> None:
    """Fill OUT, or stamp it."""
    if sys.argv[1] == "--stamp":
        stamp(Path(sys.argv[2]))
        return
    out, places = Path(sys.argv[1]), [Path(place) for place in sys.argv[2:]]
    out.mkdir()
    # /bin, /lib and so on, which on Debian are links into /usr.
    for link in Path("/").iterdir():
        if link.is_symlink() and not link.readlink().is_absolute():
            (out / link.name).symlink_to(link.readlink())
    interpreter(out)
    for place in places:
        copy_tree(place, out, _NOT_RUN)
    for name in _KEPT_AS_THEY_ARE:
        if Path("/", name).exists():
            copy(Path("/", name), out)
    for library in libraries(out):
        copy(library, out)
    compileall.compile_dir(out, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, stripdir=out)
    user(out)
    packages(out)
    stamp(out)


def interpreter(out: Path) -> None:
    """The Python that runs this, by all of its names, and its shared library."""
    for name in {sys.executable, os.path.realpath(sys.executable), *_names_of(Path(sys.executable))}:
        copy(Path(name), out)
    for place in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        copy_tree(Path(place), out, _LEFT_OUT)
    directory = Path(sysconfig.get_config_var("LIBDIR") or "")
    for place in (directory, directory / (sysconfig.get_config_var("MULTIARCH") or "")):
        if (library := place / (sysconfig.get_config_var("INSTSONAME") or "")).is_file():
            copy(library, out)


def _names_of(program: Path) -> Iterator[str]:
    """The links that lie on the way to a program."""
    while program.is_symlink():
        program = program.parent / program.readlink()
        yield str(program)


def copy(path: Path, out: Path) -> None:
    """One file at its place, and the links on the way to it."""
    target = out / path.parent.resolve().relative_to("/") / path.name
    if target.is_symlink() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(path.readlink())
        copy(path.parent / path.readlink(), out)
    else:
        shutil.copy2(path, target)


def copy_tree(path: Path, out: Path, without: tuple[str, ...]) -> None:
    """A directory at its place."""
    target = out / path.relative_to("/")
    shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*without))


def libraries(out: Path) -> list[Path]:
    """The shared libraries that whatever is there loads, and that are not there yet."""
    linker = next(path for place in ("/lib64", "/lib") for path in sorted(Path(place).glob("ld-linux*.so.*")))
    found = {linker}
    for path in out.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(4) != _ELF:
                continue
        # From where it will be, for what lies beside it ($ORIGIN).
        listed = subprocess.run(
            [str(linker), "--list", "/" / path.relative_to(out)], capture_output=True, encoding="utf-8", check=False
        )
        found |= {Path(name) for name in _LIBRARY.findall(listed.stdout)}
    return sorted(library for library in found if not (out / library.resolve().relative_to("/")).exists())


def user(out: Path) -> None:
    """The one user, who owns nothing but what is mounted; by number, for whoever wants to know that it is not root."""
    (out / "etc/passwd").write_text(f"root:x:0:0::/:\nbackend:x:{USER}:{USER}::/:\n", encoding="utf-8")
    (out / "etc/group").write_text(f"root:x:0:\nbackend:x:{USER}:\n", encoding="utf-8")
    (out / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n", encoding="utf-8")
    for name, mode in MOUNT_POINTS.items():
        place = out / name
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(mode)
        os.chown(place, USER, USER)


def packages(out: Path) -> None:
    """Note the Debian packages that files are of, each with its entry of dpkg's record."""
    record = Path("/var/lib/dpkg/status")
    if not record.exists():
        return
    entries = {
        entry.partition("\n")[0].removeprefix("Package: "): entry
        for entry in record.read_text(encoding="utf-8").split("\n\n")
    }
    known = {"/" / path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    owners = {
        files.stem.partition(":")[0]
        for files in Path("/var/lib/dpkg/info").glob("*.list")
        if any(_resolved(line) in known for line in files.read_text(encoding="utf-8").splitlines())
    }
    place = out / "var/lib/dpkg/status.d"
    place.mkdir(parents=True)
    for owner in sorted(owners & entries.keys()):
        (place / owner).write_text(entries[owner] + "\n", encoding="utf-8")


def _resolved(line: str) -> Path:
    path = Path(line)
    return path.parent.resolve() / path.name


def stamp(out: Path) -> None:
    """Give everything the time of the commit."""
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for path in (*out.rglob("*"), out):
        os.utime(path, (moment, moment), follow_symlinks=False)


if __name__ == "__main__":
    main()
