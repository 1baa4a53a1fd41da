"""Whether lint notices an operation or a method that nobody handles, without anything that runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from unittest.mock import patch

import bff.main
import order_service.main
import pytest
from devstack.layout import Layout
from lint_handlers import problems


def test_handlers_fit_their_contracts_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nothing:
        """Handles no method."""

        def __init__(self, *_: object) -> None: ...

    with patch.dict(os.environ):
        assert asyncio.run(problems(Layout(tmp_path / "whole"))) == []
        monkeypatch.setattr(bff.main, "MetaHandlers", Nothing)
        monkeypatch.setattr(
            order_service.main.CatalogHandlers, "GetProduct", order_service.main.CatalogHandlers.__bases__[0].GetProduct
        )
        found = asyncio.run(problems(Layout(tmp_path / "lacking")))
    assert len(found) == 2
    assert "has no handler" in found[0]
    assert found[0].startswith("bff: ")
    assert "order.v1.CatalogService.GetProduct has no handler" in found[1]
