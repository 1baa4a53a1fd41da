"""The process itself: what it takes of the machine, and Python's garbage collector. With Envoy in it, all of both."""

from __future__ import annotations

import gc
import os
import resource
import time
from functools import partial
from pathlib import Path

from chassis.metrics.families import Reading

_CPU = Reading("process_cpu_seconds_total", "CPU time that the process has used")
_MEMORY = Reading("process_resident_memory_bytes", "Memory of the process that is in RAM")
_OPEN_FILES = Reading("process_open_fds", "File descriptors that are open")
_MOST_FILES = Reading("process_max_fds", "File descriptors that may be open")
_STARTED = Reading("process_start_time_seconds", "When Python was started in the process, Unix time")
_COLLECTIONS = Reading("python_gc_collections_total", "Runs of the garbage collector", "generation")
_UNCOLLECTABLE = Reading("python_gc_uncollectable_objects_total", "Objects it could not free", "generation")

# Linux only; elsewhere these families are empty.
_PROC = Path("/proc/self")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident_bytes() -> float:
    pages = int((_PROC / "statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _of_collector(generation: int, what: str) -> float:
    found: int = gc.get_stats()[generation][what]
    return found


def begin() -> None:
    """From now on they are told."""
    started = time.time()
    _CPU.read(_cpu_seconds)
    _STARTED.read(lambda: started)
    _MOST_FILES.read(lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if _PROC.exists():
        _MEMORY.read(_resident_bytes)
        _OPEN_FILES.read(lambda: sum(1 for _ in (_PROC / "fd").iterdir()))
    for generation in range(3):
        _COLLECTIONS.read(partial(_of_collector, generation, "collections"), str(generation))
        _UNCOLLECTABLE.read(partial(_of_collector, generation, "uncollectable"), str(generation))
