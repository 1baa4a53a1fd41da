"""Commands in messages, as whoever reads them can type them."""

from __future__ import annotations

import os

# The launcher says how it was called: `./backend`, or a path to it from elsewhere.
PROGRAM = os.environ.get("BACKEND_COMMAND") or "./backend"


def as_typed(message: str) -> str:
    """A message that names commands as `backend VERB`, with the launcher in their place."""
    return message.replace("`backend ", f"`{PROGRAM} ")
