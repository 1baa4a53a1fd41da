from __future__ import annotations

import json
from pathlib import Path

from devstack.secrets import NAMES, OF_SERVERS, file, load_or_create, made_anew


def test_those_of_a_stack_are_made_once(tmp_path: Path) -> None:
    made = load_or_create(tmp_path)
    assert load_or_create(tmp_path) == made
    assert sorted(made.values) == sorted(NAMES)
    assert len(set(made.values.values())) == len(NAMES)


def test_what_a_stack_has_stays_and_what_a_service_needs_since_is_added(tmp_path: Path) -> None:
    made = load_or_create(tmp_path)
    # As the file was written before each service's secrets had its name in front.
    before = dict(made.values)
    before["refresh_token_secret"] = before.pop("user_refresh_token_secret")
    del before["order_cursor_secret"]
    file(tmp_path).write_text(json.dumps(before), encoding="utf-8")
    now = load_or_create(tmp_path)
    assert now.own("order", "cursor_secret") != made.own("order", "cursor_secret")
    assert {**now.values, "order_cursor_secret": made["order_cursor_secret"]} == made.values
    assert json.loads(file(tmp_path).read_text(encoding="utf-8")) == now.values


def test_a_rotation_replaces_the_servers_passwords_only(tmp_path: Path) -> None:
    old = load_or_create(tmp_path)
    new = made_anew(old)
    assert {name for name in NAMES if new[name] != old[name]} == set(OF_SERVERS)
