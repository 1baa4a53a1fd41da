"""What is shipped, and whether it works: `make test-delivery`, which has the programs for it. `make test` needs nothing but Python."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("DELIVERY") else ["test_*.py"]
