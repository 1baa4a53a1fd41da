"""Which addresses count as one."""

from __future__ import annotations

import pytest
from chassis.networks import network


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::1", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("fe80::1%2", "fe80:0000:0000:0000"),
        ("no:address", "no:address"),
        ("", ""),
    ],
)
def test_whatever_stands_for_an_address_is_counted(address: str, counted: str) -> None:
    assert network(address) == counted
