"""What a consumer and the broker have to agree on."""

from __future__ import annotations

# For how long a consumer may be silent about an event until the broker gives it again.
ACK_SECONDS = 10.0
# Events that a consumer may have in its hands, those that wait behind others included. The broker gives no more at once: so
# who takes over from a process that is gone has room for everything that it had.
MOST_HELD = 256
# The largest event, headers included; and how much more a dead letter of one may be, which says what has failed.
MAX_EVENT_BYTES = 256 * 1024
MAX_FAULT_BYTES = 8 * 1024
