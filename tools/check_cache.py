"""What has been checked and found well, by the digest of everything that the check has read: it need not be checked again.

Nothing is well because of its name or its time: a digest has the contents of the files, the command, and the environment
(its packages by the locks, its Python, where it is). What failed is not remembered; nor is what changed while it was checked.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

# Of one check at most; what is older was of files that are not so any more.
_KEPT = 200


class Tree:
    """The files of a repository that git knows or would add, and their contents."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests: dict[str, bytes] = {}

    def names(self) -> list[str]:
        """Their paths, from the root.

        Raises:
            OSError: there is no git.
            subprocess.CalledProcessError: it is no repository.
        """
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        said = subprocess.run(command, cwd=self._root, capture_output=True, check=True).stdout
        return sorted({name.decode("utf-8", "surrogateescape") for name in said.split(b"\0") if name})

    def digest(self, reads: str) -> str:
        """Of all files whose paths a pattern finds: of which there are, and what is in them now.

        Raises:
            OSError: there is no git, or a file cannot be read.
            subprocess.CalledProcessError: it is no repository.
        """
        pattern, whole = re.compile(reads), hashlib.sha256()
        for name in self.names():
            path = self._root / name
            # One that is gone is in git's list until that is told.
            if pattern.search(name) and path.is_file():
                whole.update(name.encode("utf-8", "surrogateescape") + b"\0" + self._of(name))
        return whole.hexdigest()

    def _of(self, name: str) -> bytes:
        if name not in self._digests:
            self._digests[name] = hashlib.sha256((self._root / name).read_bytes()).digest()
        return self._digests[name]


def environment(root: Path) -> str:
    """What the checks run in: this Python, and what was installed into it (the stamp of tools/bootstrap.py).

    Raises:
        OSError: nothing says what was installed.
    """
    return f"{sys.version}\0{sys.prefix}\0{(root / '.venv/bootstrap.json').read_text(encoding='utf-8')}"


def key(*parts: str | Sequence[str]) -> str:
    """One digest of many."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Passed:
    """Digests of what has passed, in a file for each check. A file that cannot be read has none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def has(self, check: str, digest: str) -> bool:
        """Whether it has passed."""
        return digest in self._read(check)

    def add(self, check: str, digests: Iterable[str]) -> None:
        """They have: whoever calls has just seen it."""
        kept = dict.fromkeys([*self._read(check), *digests])
        self._directory.mkdir(exist_ok=True)
        path = self._file(check)
        written = path.with_suffix(".new")
        written.write_text("\n".join([*kept][-_KEPT:]), encoding="utf-8")
        written.replace(path)

    def _read(self, check: str) -> list[str]:
        try:
            return self._file(check).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError):
            return []

    def _file(self, check: str) -> Path:
        return self._directory / re.sub(r"[^a-z]+", "-", check)
