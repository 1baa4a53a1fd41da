"""The directory of a stack's Unix sockets, outside of its data directory because a socket's path must be short."""

from __future__ import annotations

import os
import stat
import sys

from devstack import postgres, privileges
from devstack.failures import StartupError
from devstack.layout import Layout

# sun_path of unix(7), and of macOS's, with the zero at its end.
_LONGEST = 107 if sys.platform == "linux" else 103


def make_directory(layout: Layout) -> None:
    """Make it, or take over our own.

    Raises:
        StartupError: its path is too long, or somebody else's is in its place.
    """
    directory = layout.sockets
    longest = len(os.fsencode(postgres.socket_directory(layout) / ".s.PGSQL.5432"))
    if longest > _LONGEST:
        raise StartupError(
            "sockets",
            f"{directory.parent} is too long a path for Unix sockets: theirs have {longest} bytes, {_LONGEST} are possible",
            "have TMPDIR name a shorter directory, /tmp for instance, then `backend up` again",
        )
    directory.mkdir(mode=0o711, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StartupError(
            "sockets", f"{directory} exists and is not ours", "remove it, or choose another directory with TMPDIR"
        )
    directory.chmod(0o711)
    postgres.socket_directory(layout).mkdir(mode=0o700, exist_ok=True)
    privileges.own(postgres.socket_directory(layout))
