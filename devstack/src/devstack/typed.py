"""Commands in messages, as whoever reads them can type them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from devstack.layout import DEFAULT_DATA_DIR

# The launcher says how it was called: `./backend`, or a path to it from elsewhere.
PROGRAM = os.environ.get("BACKEND_COMMAND") or "./backend"
_COMMAND = re.compile(r"`backend ([^`]+)`")


def as_typed(message: str, data_dir: Path = DEFAULT_DATA_DIR, options: Sequence[str] = ()) -> str:
    """A message that names commands as `backend VERB`, with the launcher in their place and the reader's own options.

    Args:
        message: what is said.
        data_dir: of the stack that it is about; where it is not the default, every command has it.
        options: how `up` was called, each option with its value: a proposed `up` has them, but for those that the
            proposal itself has.
    """

    def typed(found: re.Match[str]) -> str:
        words = found[1].split()
        if words[0] == "up":
            words += [option for option in options if shlex.split(option)[0] not in words]
        if data_dir != DEFAULT_DATA_DIR:
            words += ["--data-dir", shlex.quote(str(data_dir))]
        return f"`{PROGRAM} {' '.join(words)}`"

    return _COMMAND.sub(typed, message)
