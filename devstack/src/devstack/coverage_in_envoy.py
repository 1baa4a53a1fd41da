"""A plugin of coverage.py, by which it measures the Python inside Envoy as well. `make coverage` uses it; nothing else does.

Coverage measures the threads that Python starts, and writes down what it found when the interpreter ends. Inside Envoy
the threads of the event loops are started by Rust, and the interpreter does not end: the process does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

import coverage

_SAVE_SECONDS = 1.0


def coverage_init(_plugins: object, _options: object) -> None:
    """Coverage calls it as it starts, in every process that it measures."""
    # chassis.launch gives it to each Envoy.
    if "ENVOY_INSTANCE" in os.environ:
        asyncio.set_event_loop = _measured_from_now_on
        threading.Thread(target=_save, name="coverage", daemon=True).start()


_set_event_loop = asyncio.set_event_loop


def _measured_from_now_on(loop: asyncio.AbstractEventLoop | None) -> None:
    """What every thread of an event loop calls first, before anything of ours runs in it."""
    sys.settrace(threading.gettrace())
    _set_event_loop(loop)


def _save() -> None:
    while True:
        time.sleep(_SAVE_SECONDS)
        if (measuring := coverage.Coverage.current()) is not None:
            measuring.save()
