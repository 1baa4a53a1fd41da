from __future__ import annotations

import pytest
from chassis.errors import ServiceError
from contracts.bff.v1.operations import OPERATIONS
from limiter.limits import Limit, Limits, Opening, network_of

CONNECTIONS = Limit(600, 300)
LIMITS = Limits(OPERATIONS, connections=CONNECTIONS, scale=1)


def test_the_contract_says_how_many() -> None:
    by_address = LIMITS.find("operations", {"operation": "login", "remote_address": "192.0.2.1"})
    assert by_address == ("login:address:192.0.2.1", Limit(20, 60))
    by_user = LIMITS.find("operations", {"operation": "createOrder", "user": "u"})
    assert by_user == ("createOrder:user:u", Limit(120, 60))
    assert LIMITS.connections == Limit(600, 300)


def test_a_scale_multiplies_all_and_never_to_nothing() -> None:
    assert Limits(OPERATIONS, connections=CONNECTIONS, scale=0.01).find(
        "operations", {"operation": "login", "remote_address": "192.0.2.1"}
    )[1] == Limit(1, 60)
    assert Limits(OPERATIONS, connections=CONNECTIONS, scale=10).connections == Limit(6000, 300)


@pytest.mark.parametrize(
    ("domain", "entries"),
    [
        ("operations", {"operation": "unknown", "user": "u"}),
        ("operations", {"operation": "login"}),
        ("operations", {}),
        ("elsewhere", {"operation": "login", "user": "u"}),
        ("operations", {"operation": "login", "remote_address": "not an address"}),
        ("connections", {"remote_address": "192.0.2.1"}),
    ],
)
def test_what_no_policy_sends_is_refused(domain: str, entries: dict[str, str]) -> None:
    with pytest.raises(ServiceError, match="INVALID_ARGUMENT"):
        LIMITS.find(domain, entries)


def test_a_connection_is_of_an_edge_and_over_http3_of_none() -> None:
    entries = {"remote_address": "2001:db8:1:2::1", "connections": "4096"}
    assert LIMITS.opening(entries) == Opening("2001:db8:1:2::", 4096, None)
    assert LIMITS.opening({**entries, "edge": "e1"}) == Opening("2001:db8:1:2::", 4096, "e1")


@pytest.mark.parametrize(
    "change",
    [
        {"remote_address": "not an address"},
        {"connections": "many"},
        {"connections": "-1"},
        # Envoy's word for a variable that is not set; and what would make a lease of another edge.
        {"edge": "-"},
        {"edge": "e1 192.0.2.9"},
    ],
)
def test_a_connection_that_no_policy_asks_for_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ServiceError, match="INVALID_ARGUMENT"):
        LIMITS.opening({"remote_address": "192.0.2.1", "connections": "4096", "edge": "e1"} | change)


def test_a_customer_of_an_ipv6_provider_is_one_caller() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::1") == "2001:db8:1:2::"
    assert network_of("2001:db8:1:3::1") != network_of("2001:db8:1:2::1")
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
