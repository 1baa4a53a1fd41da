"""One class of operation never hurts another: a reader beside floods of what is slow (`tools/soak.py`, briefly)."""

from __future__ import annotations

import mesh
import pytest
import soak
from devstack.options import Options

from conftest import People, Platform


def _counter(what: str, operation_class: str) -> str:
    return f'backend_admission_{what}_total{{class="{operation_class}"}}'


@pytest.mark.parametrize(("what", "operation_class", "rate"), [("logins", "login", 200), ("payments", "payment", 100)])
async def test_a_reader_notices_nothing_of_a_flood(
    people: People, stack: Platform, what: str, operation_class: str, rate: float
) -> None:
    product = await people.product(stock=1_000_000)
    bff = stack.status["endpoints"]["bff_ops"]
    before = await mesh.metrics(bff, "/metrics")
    reader, flood = await soak.soak(stack.url, product.id, what, rate, seconds=3)
    after = await mesh.metrics(bff, "/metrics")
    assert set(reader.statuses) == {200}
    assert reader.statuses[200] >= 20
    # The flood was one, however much of it a busy machine could send, and was told so rightly.
    assert flood.statuses[503] > 10
    assert flood.wrong == []
    refused, served = _counter("refused", operation_class), _counter("admitted", operation_class)
    assert after[refused] - before[refused] > 10
    assert after[served] - before[served] > 20
    for other in ("read", "write", "administration"):
        assert after[_counter("refused", other)] == before[_counter("refused", other)], other


async def test_every_service_has_its_lanes_and_counts_them(stack: Platform) -> None:
    for name in ("bff", "order", "user", "limiter"):
        found = await mesh.metrics(stack.status["endpoints"][f"{name}_ops"], "/metrics")
        assert found['backend_admission_slots{class="read"}'] == 64
        assert found[_counter("admitted", "read")] > 0 or name == "user"
        assert found["backend_event_loop_lag_seconds"] < 2


async def test_what_the_bffs_own_envoy_refuses_is_a_problem(stack: Platform) -> None:
    """Here a peer that may not call it; the same form is what a client gets when that Envoy is overloaded."""
    other = mesh.identity(stack.layout.certificates / "user")
    with mesh.another(stack, "bff", Options(replicas={"order": 2})) as bff:
        answer = await mesh.call(bff.port("bff"), "/v1/products", other, method="GET")
    assert (answer.status, answer.headers["content-type"]) == (403, "application/problem+json")
