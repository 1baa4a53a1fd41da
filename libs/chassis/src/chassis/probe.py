"""`python -m chassis.probe`: whether the process in this container is ready; 0 when it is. What an image's HEALTHCHECK runs.

It asks the ops listener at 127.0.0.1:$OPS_PORT, as a probe of Kubernetes does from outside. Few imports: it is run every few
seconds.
"""

from __future__ import annotations

import http.client
import os
import sys
from contextlib import closing

_TIMEOUT_SECONDS = 2


def main() -> int:
    """0 when `/healthz/ready` answers 200; else 1, with what it says."""
    port = os.environ.get("OPS_PORT", "")
    if not port.isdecimal():
        print("OPS_PORT has to be the port of the ops listener", file=sys.stderr)
        return 1
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT_SECONDS)) as connection:
            connection.request("GET", "/healthz/ready")
            answer = connection.getresponse()
            print(answer.status, answer.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"127.0.0.1:{port}: {error}", file=sys.stderr)
        return 1
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
