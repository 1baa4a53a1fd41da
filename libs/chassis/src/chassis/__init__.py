"""The microservice chassis: what every service needs and no domain knows."""

from __future__ import annotations

import sys

# structlog imports rich where that is installed, for a console's colours, which no service has: a fifth of its start.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog as structlog
    finally:
        del sys.modules["rich"]
