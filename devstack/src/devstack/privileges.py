"""PostgreSQL refuses to run as root; this gives it another user, and still lets it reach a private directory.

As root, the child becomes `nobody`. The data directory, which only its owner may enter, is where the child is started
and never has to come to. When the clone lies below such a directory, that user could not find its own program; then, and only then, the child keeps the one capability
that passes directory permissions (CAP_DAC_OVERRIDE, as an ambient capability: capabilities(7)). On a development
machine that is still less than root has.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
# access(2) asks with the real user's rights and, without this bit, without any capability.
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def unprivileged_user() -> pwd.struct_passwd | None:
    """The user that a child of root becomes; None when we are not root and nothing has to change."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def own(directory: Path) -> None:
    """Give a directory to the unprivileged user, where there is one."""
    user = unprivileged_user()
    if user is not None:
        os.chown(directory, user.pw_uid, user.pw_gid)


def working_directory(directory: Path) -> str:
    """What a child that stands in `directory` calls it.

    Another user could not come to a directory below one that only its owner may enter; it needs not come to where it is.
    """
    return str(directory) if unprivileged_user() is None or sys.platform != "linux" else "/proc/self/cwd"


def child_setup(paths: Iterable[Path]) -> Callable[[], None]:
    """What a child does between fork and exec: drop root, and die (cleanly, SIGINT) with its parent.

    Args:
        paths: what the child has to reach.
    """
    user = unprivileged_user()
    needs_override = user is not None and not all(_traversable(path) for path in paths)
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def setup() -> None:
        if user is not None:
            if needs_override and libc is not None:
                _check(libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            if needs_override and libc is not None:
                # With that bit the change of user has dropped nothing: this leaves the one capability.
                bit = 1 << _CAP_DAC_OVERRIDE
                data = (_Data * 2)(_Data(bit, bit, bit), _Data(0, 0, 0))
                _check(libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), data))
                _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))
        if libc is not None:
            # After the change of user, which clears it.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

    return setup


def _check(result: int) -> None:
    """Never exec with other rights than intended: the child ends, and the parent's spawn raises."""
    if result != 0:
        raise OSError(ctypes.get_errno(), "the child's capabilities could not be set")


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """A child setup that only asks for `number` when the parent dies, however it dies (Linux)."""

    def setup() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)

    return setup


def _traversable(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)
