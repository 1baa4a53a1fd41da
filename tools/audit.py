"""Known vulnerabilities of everything that is locked, by PyPI's advisories: `make audit`. Fails when there is one.

Where an index has no advisories, every package looks well. So a package that is known to have some is asked for first; an answer
without them is no answer, and fails too.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import delivery

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("bootstrap.lock", "requirements.lock", "delivery.lock")
# Advisories by their ids, and why each is none of ours; one that nothing has any more fails.
EXEMPTED: Mapping[str, str] = {}
# Jinja2 2.4.1 lets templates out of its sandbox (CVE-2016-10745, CVE-2019-10906).
_KNOWN = "jinja2==2.4.1"
_ENTRY = re.compile(r"^([A-Za-z0-9][\w.-]*==[^\s;\\]+)", re.MULTILINE)


class AuditError(Exception):
    """Something is vulnerable, or nobody can say; the message says which."""


class Vulnerability(TypedDict):
    """As pip-audit writes it."""

    id: str
    fix_versions: list[str]


class Dependency(TypedDict, total=False):
    """As pip-audit writes it."""

    name: str
    version: str
    vulns: list[Vulnerability]
    skip_reason: str


def locked() -> list[str]:
    """Every version that a lock has, for whichever platform."""
    return sorted({entry for lock in LOCKS for entry in _ENTRY.findall((ROOT / lock).read_text(encoding="utf-8"))})


def asked(requirements: Sequence[str]) -> list[Dependency]:
    """What the advisories say of each; a file of requirements has a package once, so versions of one are asked for in turns.

    Raises:
        AuditError: pip-audit cannot ask.
    """
    found: list[Dependency] = []
    waiting = list(requirements)
    while waiting:
        turn = {entry.partition("==")[0]: entry for entry in waiting}
        waiting = [entry for entry in waiting if entry not in turn.values()]
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            file.write("\n".join([*turn.values(), ""]))
            file.flush()
            command = [str(delivery.BIN / "pip-audit"), "--disable-pip", "--no-deps", "--progress-spinner", "off"]
            done = subprocess.run(
                [*command, "--format", "json", "-r", file.name], capture_output=True, encoding="utf-8", check=False
            )
        try:
            found += json.loads(done.stdout)["dependencies"]
        except ValueError:
            raise AuditError(f"pip-audit has no answer: {done.stderr.strip()}") from None
    return found


def check_the_index(known: Sequence[Dependency]) -> None:
    """Look at the answer for the package that is known to be vulnerable.

    Raises:
        AuditError: nothing is known of it.
    """
    if not any(dependency.get("vulns") for dependency in known):
        raise AuditError(
            f"the index knows nothing of the vulnerabilities of {_KNOWN}: what it says of ours means nothing"
        )


def check(ours: Sequence[Dependency], exempted: Mapping[str, str] = EXEMPTED) -> None:
    """Look at the answers for what is locked.

    Raises:
        AuditError: there is a vulnerability, an answer that is none, or an exemption that nothing needs.
    """
    if unknown := [str(dependency.get("name")) for dependency in ours if "skip_reason" in dependency]:
        raise AuditError(f"could not be looked up: {', '.join(sorted(unknown))}")
    found = [(dependency, one) for dependency in ours for one in dependency.get("vulns", [])]
    if vulnerable := [
        f"{dependency['name']} {dependency['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'nothing yet'}"
        for dependency, one in found
        if one["id"] not in exempted
    ]:
        raise AuditError("\n".join(vulnerable))
    if vain := exempted.keys() - {one["id"] for _, one in found}:
        raise AuditError(f"exempted, and nothing has it: {', '.join(sorted(vain))}")


def main() -> None:
    """Exit 1 unless everything that is locked is well."""
    delivery.prepare()
    try:
        entries = locked()
        check_the_index(asked([_KNOWN]))
        check(asked(entries))
    except AuditError as error:
        sys.exit(str(error))
    print(f"none of {len(entries)} packages has a known vulnerability")


if __name__ == "__main__":
    main()
