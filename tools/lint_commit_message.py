"""A commit says what kind of change it is, in the form from which the changelog is made: `type(scope)!: what`.

See conventionalcommits.org, 1.0.0.

    .venv/bin/python tools/lint_commit_message.py FILE
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TYPES = ("feat", "fix", "perf", "refactor", "docs", "test", "build", "ci", "style", "chore", "bench", "revert")
_SUBJECT = re.compile(rf"({'|'.join(TYPES)})(\([a-z0-9][a-z0-9_, /-]*\))?!?: \S.*")
# What git writes itself, and what is squashed before it is landed.
_OF_GIT = re.compile(r"(Merge|Revert|fixup!|squash!|amend!) ")
# Git's own comments, and what it shows below this line with --verbose.
_SCISSORS = "# ------------------------ >8 ------------------------"


def faults(message: str) -> list[str]:
    """What is wrong with a message, a line each."""
    lines = [line for line in message.partition(_SCISSORS)[0].splitlines() if not line.startswith("#")]
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        return ["it says nothing"]
    subject = lines[0]
    if _OF_GIT.match(subject):
        return []
    found = []
    if not _SUBJECT.fullmatch(subject):
        found.append(f"{subject!r} is not `type(scope)!: what has changed, and why`; types: {', '.join(TYPES)}")
    if subject.endswith("."):
        found.append("the first line ends without a full stop")
    if len(lines) > 1 and lines[1].strip():
        found.append("the second line is empty")
    return found


def main() -> None:
    """Exit 1 with what is wrong."""
    found = faults(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
