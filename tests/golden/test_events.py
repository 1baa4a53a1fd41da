"""`events/`: what the services tell, as the broker has it.

The tests that make things happen write them down: `services/order/tests/integration/test_events.py`, and the User service's.
"""

from __future__ import annotations

import re

import goldens
from contracts.common.v1 import options_pb2
from contracts.order.v1 import events_pb2 as of_orders
from contracts.user.v1 import events_pb2 as of_users


def test_every_type_of_event_has_a_golden_example() -> None:
    types = {
        message.full_name
        for module in (of_orders, of_users)
        for message in module.DESCRIPTOR.message_types_by_name.values()
        if message.GetOptions().Extensions[options_pb2.event].subject
    }
    texts = [path.read_text(encoding="utf-8") for path in (goldens.GOLDEN / "events").iterdir()]
    assert {name for text in texts for name in re.findall(r"^## (.+)$", text, re.MULTILINE)} == types
