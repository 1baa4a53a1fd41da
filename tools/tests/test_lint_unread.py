"""Which fields a mapping takes and does not pass on, and nobody said so."""

from __future__ import annotations

from pathlib import Path

import pytest
from lint_unread import ROOT, problems

IMPORTS = """
from chassis.json_web_keys import JsonWebKey
from contracts.bff.v1 import models
from contracts.common.v1 import money_pb2
from contracts.order.v1 import catalog_pb2
from order.domain.money import Money
from order.domain.product import Product
"""
PAGE = "request.page.limit, request.page.cursor"


@pytest.mark.parametrize(
    ("function", "unread"),
    [
        # Of a message, of a domain's class, of a model.
        ("def f(m: money_pb2.Money) -> models.Money: return m.amount_minor, m.currency", []),
        ("def f(m: money_pb2.Money) -> models.Money: return m.amount_minor", ["currency of Money"]),
        ("def f(m: Money) -> money_pb2.Money: return m.currency", ["amount_minor of Money"]),
        ("def f(m: money_pb2.Money) -> Money: return m.currency", ["amount_minor of Money"]),
        ("def f(m: Money) -> models.Money: return m.currency", ["amount_minor of Money"]),
        ("async def f(body: models.Price): return body.currency", ["amount_minor of Price"]),
        ("def f(m: money_pb2.Money | None) -> Money: return m.currency", ["amount_minor of Money"]),
        ("class C:\n def f(self, *, m: Money) -> models.Money: return m.currency", ["amount_minor of Money"]),
        # A field that is set is not read; one whose presence is asked is not either.
        ("def f(m: Money) -> models.Money:\n m.amount_minor = 1\n return m.currency", ["amount_minor of Money"]),
        ("def f(r: catalog_pb2.ListProductsRequest) -> models.Money: return r.HasField('page'), r.search",
         ["page of ListProductsRequest"]),
        # What is nested.
        ("def f(r: catalog_pb2.ListProductsRequest) -> models.Money: return r.page.limit, r.search",
         ["page.cursor of ListProductsRequest"]),
        ("def f(r: catalog_pb2.ListProductsRequest) -> models.Money: return r.page.limit, r.page.cursor, r.search", []),
        ("def f(r: catalog_pb2.ListProductsRequest) -> models.Money: return g(r.page), r.search", []),
        ("def f(b: models.CreateOrderRequest): return [line.quantity for line in b.items]",
         ["items.product_id of CreateOrderRequest"]),
        ("def f(b: models.CreateOrderRequest):\n for line in b.items: g(line.product_id)",
         ["items.quantity of CreateOrderRequest"]),
        ("def f(b: models.CreateOrderRequest): return [g(line) for line in b.items]", []),
        ("def f(b: models.CreateOrderRequest): return g(b.items)", []),
        # Said to be left out; and said in vain.
        ("# does not pass on: currency\ndef f(m: Money) -> models.Money: return m.amount_minor", []),
        ("def f(m: Money) -> models.Money:\n # does not pass on: currency\n return m.amount_minor", []),
        ("# does not pass on: currency\ndef f(m: Money) -> models.Money: return m.amount_minor, m.currency", ["vain"]),
        ("# does not pass on: colour\ndef f(m: Money) -> models.Money: return m.amount_minor, m.currency", ["vain"]),
        # No mapping: handed on whole, not used, of no contract, without a result of one.
        ("def f(m: Money) -> models.Money: return g(m)", []),
        ("def f(_m: Money) -> models.Money: return g()", []),
        ("def f(m: Money, p: Product) -> Money: return m.amount_minor", []),
        ("def f(key: JsonWebKey): return key.x", []),
        ("def f(m: money_pb2.Money) -> bool: return m.amount_minor > 0", []),
    ],
)  # fmt: skip
def test_what_is_not_passed_on_is_found(tmp_path: Path, function: str, unread: list[str]) -> None:
    module = tmp_path / "module.py"
    module.write_text(f"{IMPORTS}\n\n{function}\n", encoding="utf-8")
    found = [problem.split(": ", 1)[1] for problem in problems(module)]
    assert ["vain" if "or does not have it" in text else text.partition("read ")[2] for text in found] == unread


def test_ours_pass_everything_on() -> None:
    paths = list(ROOT.glob("services/*/src/**/*.py"))
    assert len(paths) > 20
    assert [problem for path in paths for problem in problems(path)] == []
