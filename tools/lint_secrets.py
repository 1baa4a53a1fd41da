"""No secret is committed: nothing that looks like a key or a token of somebody's, by the forms that those have.

Forms that nothing else has, and no guesses about randomness: what it finds is one. What only looks like one, in a test say, has
`not a secret` in its line.

    .venv/bin/python tools/lint_secrets.py                every file
    .venv/bin/python tools/lint_secrets.py --staged       the lines that are about to be committed
    .venv/bin/python tools/lint_secrets.py --history      the lines that any commit has added: what was there once is known
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Each begins with letters of its own, not with a word's boundary: so a text without them is passed over at once.
FORMS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*(\\n|\n|$)"),
    "an AWS access key": re.compile(r"A(KIA|SIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,}"),
    "a GitLab token": re.compile(r"glpat-[A-Za-z0-9_-]{20,}"),
    "a Slack token": re.compile(r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "a Google API key": re.compile(r"AIza[0-9A-Za-z_-]{35}\b"),
    "a Stripe key": re.compile(r"[rs]k_live_[0-9A-Za-z]{20,}"),
    "an npm token": re.compile(r"npm_[A-Za-z0-9]{36}\b"),
    "a PyPI token": re.compile(r"pypi-[A-Za-z0-9_-]{50,}"),
    "a signed token": re.compile(r"eyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{40,}"),
    "a password in a URL": re.compile(r"://[^\s:/@'\"{}$<>]+:[^\s:/@'\"{}$<>]{12,}@[a-z0-9.-]+\.[a-z]{2,}\b"),
}
ALLOWED = "not a secret"
# Where a line cannot say so: what a release that is gone has signed with a key that is gone.
KNOWN = {("tests/golden/release/b12ed36.json", "a signed token")}
_HUNK = re.compile(r"@@ -\S+ \+(\d+)")


def problems(lines: Iterator[tuple[str, int, str]]) -> list[str]:
    """Where there is a secret, and of which form; never the secret. Lines are of a file, with their numbers."""
    return [
        f"{file}:{number}: {what}"
        for file, number, line in lines
        if ALLOWED not in line
        for what, form in FORMS.items()
        if form.search(line) and (file, what) not in KNOWN
    ]


def added(patch: str) -> Iterator[tuple[str, int, str]]:
    """The lines that a patch adds (`git diff --unified=0`)."""
    file, number, in_hunk = "", 0, False
    for line in patch.split("\n"):
        if line.startswith("diff --git "):
            in_hunk = False
        elif not in_hunk and line.startswith("+++ "):
            file = line.removeprefix("+++ ").removeprefix("b/")
        elif hunk := _HUNK.match(line):
            number, in_hunk = int(hunk[1]), True
        elif in_hunk and line.startswith("+"):
            yield file, number, line[1:]
            number += 1


def every_line() -> Iterator[tuple[str, int, str]]:
    """Of all files that git knows or would add, and that are text."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0"):
        path = ROOT / name.decode("utf-8", "surrogateescape")
        if not name or not path.is_file():
            continue
        text = path.read_bytes().decode(errors="replace")
        if "\0" in text or not any(form.search(text) for form in FORMS.values()):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            yield str(path.relative_to(ROOT)), number, line


def _said(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode(errors="replace")


def main() -> None:
    """Exit 1 and say where there is one."""
    patch = ["--unified=0", "--no-color", "--no-ext-diff", "--diff-filter=ACMR"]
    if "--staged" in sys.argv[1:]:
        lines = added(_said("git", "diff", "--cached", *patch))
    elif "--history" in sys.argv[1:]:
        if _said("git", "rev-parse", "--is-shallow-repository").strip() != "false":
            sys.exit("the history is cut off here: fetch all of it")
        lines = added(_said("git", "log", "--patch", "--format=", *patch))
    else:
        lines = every_line()
    if found := problems(lines):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
