"""`backend log-level`: per service, at once, for a while."""

from __future__ import annotations

import time

import httpx
import pytest

from conftest import Platform, backend


def debug_lines(stack: Platform, service: str) -> int:
    return (stack.layout.logs / f"{service}.log").read_text(encoding="utf-8").count('"level":"debug"')


def test_a_level_changes_at_once_for_one_service_and_falls_back_by_itself(stack: Platform) -> None:
    where, ops = ("--data-dir", str(stack.layout.data_dir)), f"{stack.status['endpoints']['order_ops']}/log-level"
    with httpx.Client(base_url=stack.url) as http:
        assert http.get("/v1/products?limit=1").status_code == 200
        before = stack.pid("order")
        assert backend("log-level", "order", *where).stdout.split() == ["order", "info"]
        assert debug_lines(stack, "order") == 0
        said = backend("log-level", "order", "debug", "--for", "6s", *where).stdout
        assert said.split()[:2] == ["order", "debug"]
        assert "then info" in said
        assert http.get("/v1/products?limit=1").status_code == 200
        give_up = time.monotonic() + 20
        while http.get(ops).json() != {"level": "info"}:
            assert time.monotonic() < give_up
            time.sleep(0.1)
        seen = debug_lines(stack, "order")
        assert seen > 0
        assert http.get("/v1/products?limit=1").status_code == 200
        assert debug_lines(stack, "order") == seen
    assert debug_lines(stack, "bff") == 0
    assert stack.pid("order") == before


def test_the_usual_level_ends_what_was_asked_for_a_while(stack: Platform) -> None:
    where = ("--data-dir", str(stack.layout.data_dir))
    assert backend("log-level", "user", "debug", *where).stdout.split()[:2] == ["user", "debug"]
    assert backend("log-level", "user", "info", *where).stdout.split() == ["user", "info"]
    assert httpx.get(f"{stack.status['endpoints']['user_ops']}/log-level").json() == {"level": "info"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("edge", "debug"), "no service 'edge'; there are: "),
        (("order", "debug", "--for", "ten"), "'ten' is no duration: write 90s, 10m, 2h or 1d"),
        (("order", "debug", "--for", "0s"), "'0s' is no duration"),
        (("order", "debug", "--for", "2d"), "seconds"),
        (("order", "loud"), "'loud' is not one of 'debug', 'info', 'warning', 'error'"),
    ],
)
def test_what_is_no_service_or_no_level_is_said(stack: Platform, arguments: tuple[str, str], named: str) -> None:
    done = backend("log-level", *arguments, "--data-dir", str(stack.layout.data_dir), check=False)
    said = done.stdout + done.stderr
    assert (done.returncode, named in said) == (2, True), said


def test_nobody_changes_it_over_the_ops_listener(stack: Platform) -> None:
    url = f"{stack.status['endpoints']['order_ops']}/log-level"
    assert httpx.put(url, json={"level": "debug"}).status_code == 403
    assert httpx.get(url).json() == {"level": "info"}
