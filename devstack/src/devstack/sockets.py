"""The directory of a stack's Unix sockets, outside of its data directory because a socket's path must be short."""

from __future__ import annotations

import os
import stat

from devstack import postgres, privileges
from devstack.layout import Layout


def make_directory(layout: Layout) -> None:
    """Make it, or take over our own.

    Raises:
        RuntimeError: somebody else's is in its place.
    """
    directory = layout.sockets
    directory.mkdir(mode=0o711, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RuntimeError(f"{directory} exists and is not ours")
    directory.chmod(0o711)
    postgres.socket_directory(layout).mkdir(mode=0o700, exist_ok=True)
    privileges.own(postgres.socket_directory(layout))
