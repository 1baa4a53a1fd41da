"""What an act of the audit trail is, and the line of the log that it becomes. The table is tried with a service's database."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from chassis import context
from chassis.audit import acts
from chassis.context import RequestContext
from chassis.identity import Caller
from chassis.ids import first_uuid7, uuid7

NOW = datetime(2026, 11, 27, 12, 0, 0, 123456, tzinfo=UTC)
ADA = Caller("0197f7a5-6f0e-7a40-9b56-3c1d2e4f5a6b", "session", ("admin",))


def test_an_act_says_by_which_request_it_was_done_and_from_where() -> None:
    with context.serving(RequestContext("a-request", caller=ADA, address="203.0.113.7")):
        act = acts.act("product.price_changed", "product/1", NOW, actor=acts.caller("order"))
    assert (act.request_id, act.address, act.actor) == ("a-request", "203.0.113.7", f"user/{ADA.user_id}")
    assert (act.time, act.before, act.after) == (NOW, {}, {})


def test_what_nobody_asked_for_is_the_services_own_act_and_an_anonymous_request_is_nobodys() -> None:
    assert acts.caller("order") == "service/order"
    with context.serving(RequestContext("a-request")):
        assert acts.caller("order") == ""


@pytest.mark.parametrize(
    ("action", "subject", "after"),
    [
        ("price changed", "product/1", {}),
        ("product.price_changed", "product", {}),
        ("product.price_changed", "product/" + "1" * 121, {}),
        ("user.changed", "user/1", {"password": "x"}),
        ("user.changed", "user/1", {"password_hash": "x"}),
        ("user.changed", "user/1", {"refresh_token": "x"}),
        ("user.changed", "user/1", {"signing_secret": "x"}),
        ("product.price_changed", "product/1", {"amount_minor": 2**53}),
    ],
)
def test_what_the_trail_does_not_take_is_an_error_where_it_is_written(
    action: str, subject: str, after: acts.Values
) -> None:
    with pytest.raises(ValueError, match=r"."):
        acts.act(action, subject, NOW, actor="user/1", after=after)


def test_text_that_is_too_long_is_cut() -> None:
    act = acts.act("order.refunded", "order/1", NOW, actor="", after={"reason": "x" * 5000, "codes": ["y" * 5000]})
    assert act.after == {"reason": "x" * 1000, "codes": ["y" * 1000]}


def test_ids_are_in_the_order_of_times_and_a_time_finds_its_place_among_them() -> None:
    moments = [NOW + timedelta(milliseconds=step) for step in range(50)]
    ids = [uuid7(moment) for moment in moments]
    assert ids == sorted(ids)
    assert all(first_uuid7(moment) < found for moment, found in zip(moments, ids, strict=True))
    assert all(earlier < first_uuid7(moment) for earlier, moment in zip(ids, moments[1:], strict=False))
    for extreme in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        assert first_uuid7(extreme)


def test_an_audit_event_is_written_whatever_the_level_of_the_log_is() -> None:
    script = """
import structlog
from datetime import UTC, datetime
from chassis.audit import acts, lines
from chassis.context import RequestContext, serving
from chassis.logging import configure
configure("order", environment="test", version="1", level="error")
structlog.get_logger("other").info("not written")
with serving(RequestContext("a-request", address="203.0.113.7")):
    lines.tell(
        acts.act("product.price_changed", "product/1", datetime.now(UTC), actor="user/2", after={"amount_minor": 5})
    )
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    (line,) = [json.loads(line) for line in output.splitlines()]
    assert all(line.pop(name) for name in ("time", "instance_id", "audit_id"))
    assert line == {
        "event": "audit",
        "level": "info",
        "service": "order",
        "environment": "test",
        "version": "1",
        "action": "product.price_changed",
        "actor": "user/2",
        "subject": "product/1",
        "request_id": "a-request",
        "address": "203.0.113.7",
        "before": {},
        "after": {"amount_minor": 5},
    }


def test_the_address_goes_from_hop_to_hop_and_is_bounded() -> None:
    sent = dict(RequestContext("a-request", address="2001:db8::7").to_metadata())
    assert RequestContext.from_metadata(sent.get, None).address == "2001:db8::7"
    assert RequestContext.from_metadata({"x-client-address": "1" * 1000}.get, None).address == "1" * 64
    assert "x-client-address" not in dict(RequestContext("a-request").to_metadata())
