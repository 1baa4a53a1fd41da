"""The version of everything in this repository. The distributions' builds read it here as well (tool.hatch.version)."""

from __future__ import annotations

__version__ = "0.1.0"
