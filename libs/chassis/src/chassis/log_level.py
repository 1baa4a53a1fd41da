"""The log level at run time, for a while: `/log-level` of the ops application.

Set (PUT) over the process's own Unix socket only: the ops listener lets nothing but GET through. It falls back by itself,
for what was forgotten at debug fills a disk.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
import structlog

from chassis.logging import change_level, current_level

_log = structlog.get_logger(__name__)


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for: a level, and for how many seconds."""

    level: Literal["debug", "info", "warning", "error"]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 900.0


class LogLevel:
    """The level that is in force, and the one that it falls back to."""

    def __init__(self) -> None:
        self._usual: str | None = None
        self._falling_back: asyncio.TimerHandle | None = None

    def state(self) -> dict[str, str | float]:
        """The level; when it was changed, the usual one and the seconds until it falls back to that."""
        if self._usual is None or self._falling_back is None:
            return {"level": current_level()}
        left = self._falling_back.when() - asyncio.get_running_loop().time()
        return {"level": current_level(), "usual": self._usual, "seconds_left": round(max(0.0, left), 1)}

    def change(self, body: bytes) -> dict[str, str | float]:
        """Change it from now on; the state.

        Raises:
            msgspec.DecodeError: the body is no `Wanted`.
        """
        wanted = msgspec.json.decode(body, type=Wanted)
        if self._falling_back is not None:
            self._falling_back.cancel()
        self._usual = self._usual or current_level()
        change_level(wanted.level)
        if wanted.level == self._usual:
            self._usual = self._falling_back = None
            _log.warning("log level is the usual one again", to=wanted.level)
        else:
            self._falling_back = asyncio.get_running_loop().call_later(wanted.seconds, self._fall_back)
            _log.warning("log level changed", to=wanted.level, seconds=wanted.seconds)
        return self.state()

    def _fall_back(self) -> None:
        usual, self._usual, self._falling_back = self._usual, None, None
        if usual is not None:
            change_level(usual)
            _log.warning("log level is the usual one again", to=usual)
