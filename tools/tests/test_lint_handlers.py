"""Whether lint notices an operation or a method that nobody handles, without anything that runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from unittest.mock import patch

import bff.main
import pytest
from contracts.order.v1.catalog_pb2_grpc import CatalogServiceServicer
from devstack.layout import Layout
from lint_handlers import problems
from order.handlers.catalog import CatalogHandlers


def test_handlers_fit_their_contracts_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nothing:
        """Handles no method."""

        def __init__(self, *_: object) -> None: ...

    with patch.dict(os.environ):
        assert asyncio.run(problems(Layout(tmp_path / "whole"))) == []
        monkeypatch.setattr(bff.main, "MetaHandlers", Nothing)
        monkeypatch.setattr(CatalogHandlers, "GetProduct", CatalogServiceServicer.GetProduct)
        found = asyncio.run(problems(Layout(tmp_path / "lacking")))
    assert len(found) == 2
    of_order, of_bff = found
    assert "order.v1.CatalogService.GetProduct has no handler" in of_order
    assert "has no handler" in of_bff
    assert of_bff.startswith("bff: ")
