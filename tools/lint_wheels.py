"""Every package that brings machine code is in docs/supply-chain.md, and nothing is there that is not locked.

What is source can be read before it runs; machine code is believed, so somebody has to say who publishes it, and why they are believed.
Packages are looked into where they are installed: what is locked for other machines alone is looked at there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs/supply-chain.md"
LOCKS = (ROOT / "requirements.lock", ROOT / "bootstrap.lock")
# How ELF's and Mach-O's files begin.
_MACHINE_CODE = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==", re.MULTILINE)
# The first cell of a row: one package, or several.
_ROW = re.compile(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \|", re.MULTILINE)


def problems(document: str, locked: Iterable[str], installed: Iterable[Distribution]) -> list[str]:
    """A line for each package that the document lacks, or has for nothing.

    Args:
        document: the text of docs/supply-chain.md.
        locked: names of what the locks have.
        installed: what is there to be looked into.
    """
    names = {canonicalize_name(name) for name in locked}
    there = {canonicalize_name(found.metadata["Name"]): found for found in installed}
    binary = {name for name in names & there.keys() if has_machine_code(there[name])}
    said = {name for row in _ROW.findall(document) for name in re.findall(r"`([^`]+)`", row)}
    return [
        *(f"{name} has machine code, and docs/supply-chain.md does not say whose" for name in sorted(binary - said)),
        *(f"{name} is in docs/supply-chain.md, and in no lock" for name in sorted(said - names)),
    ]


def has_machine_code(package: Distribution) -> bool:
    """Whether one of its files is a program or a library for a processor."""
    for file in package.files or ():
        path = Path(str(package.locate_file(file)))
        if path.is_file():
            with path.open("rb") as opened:
                if opened.read(4) in _MACHINE_CODE:
                    return True
    return False


def main() -> None:
    """Print every problem; exit 1 when there is one."""
    locked = [name for lock in LOCKS for name in _LOCKED.findall(lock.read_text(encoding="utf-8"))]
    if found := problems(DOCUMENT.read_text(encoding="utf-8"), locked, distributions()):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
