"""Which request ids of others are taken over."""

from __future__ import annotations

import pytest
from chassis.context import accept_request_id


@pytest.mark.parametrize("offered", [None, "", "short", "x" * 65, "with space 1", "new\nline-123", "ünïcode-1"])
def test_an_ill_formed_one_is_replaced(offered: str | None) -> None:
    assert accept_request_id(offered) != offered


def test_a_well_formed_one_is_kept() -> None:
    assert accept_request_id("3f0d9e6a-7b21") == "3f0d9e6a-7b21"
