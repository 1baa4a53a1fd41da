from __future__ import annotations

import json
from pathlib import Path

from chassis.envoy_bootstrap import Bootstrap, Monitor
from chassis.pressure import ConnectionPressure, of_configuration


def bootstrap(*monitors: Monitor) -> Bootstrap:
    return {
        "admin": {"address": {"pipe": {"path": "admin.sock"}}},
        "static_resources": {"listeners": []},
        "overload_manager": {"resource_monitors": [*monitors]},
    }


def answer(connections: int) -> bytes:
    return json.dumps({"stats": [{"name": "http.ingress.downstream_cx_active", "value": connections}]}).encode()


def test_the_file_says_how_full_it_is(tmp_path: Path) -> None:
    file, answers = tmp_path / "edge.pressure", iter([answer(0), answer(25), answer(99), answer(140)])
    pressure = ConnectionPressure(file, 100, lambda _: next(answers))
    said = [file.read_text(encoding="utf-8")]
    for _ in range(4):
        pressure.tell()
        said.append(file.read_text(encoding="utf-8"))
    assert said == ["0.00", "0.00", "0.25", "0.99", "1.00"]


def test_it_is_replaced_when_there_is_news_and_as_a_whole(tmp_path: Path) -> None:
    """Envoy watches for a file that is moved there, and reads it at once."""
    file, answers = tmp_path / "edge.pressure", iter([answer(5), answer(5), answer(6)])
    pressure = ConnectionPressure(file, 10, lambda _: next(answers))
    files = set()
    for _ in range(3):
        pressure.tell()
        files.add((file.stat().st_ino, file.read_text(encoding="utf-8")))
    assert [text for _, text in sorted(files, key=lambda one: one[1])] == ["0.50", "0.60"]
    assert [path.name for path in tmp_path.iterdir()] == ["edge.pressure"]


def test_an_envoy_that_does_not_answer_changes_nothing(tmp_path: Path) -> None:
    file, heard = tmp_path / "edge.pressure", [answer(5)]

    def ask(_: str) -> bytes:
        if heard:
            return heard.pop()
        raise TimeoutError

    pressure = ConnectionPressure(file, 10, ask)
    pressure.tell()
    pressure.tell()
    assert file.read_text(encoding="utf-8") == "0.50"


def test_a_file_that_cannot_be_written_ends_nobody_and_is_tried_again(tmp_path: Path) -> None:
    file, answers = tmp_path / "edge.pressure", iter([answer(5), answer(5)])
    pressure = ConnectionPressure(file, 10, lambda _: next(answers))
    # In the way of what is written first, as a full disk would be.
    (tmp_path / "edge.new").mkdir()
    pressure.tell()
    assert file.read_text(encoding="utf-8") == "0.00"
    (tmp_path / "edge.new").rmdir()
    pressure.tell()
    assert file.read_text(encoding="utf-8") == "0.50"


def test_only_an_envoy_that_reads_one_is_told(tmp_path: Path) -> None:
    connections: Monitor = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {"max_active_downstream_connections": 50},
    }
    injected: Monitor = {
        "name": "envoy.resource_monitors.injected_resource",
        "typed_config": {"filename": str(tmp_path / "told")},
    }
    assert (
        of_configuration({"admin": bootstrap()["admin"], "static_resources": {"listeners": []}}, lambda _: b"") is None
    )
    assert of_configuration(bootstrap(), lambda _: b"") is None
    assert of_configuration(bootstrap(connections), lambda _: b"") is None
    pressure = of_configuration(bootstrap(connections, injected), lambda _: answer(10))
    assert pressure is not None
    pressure.tell()
    assert (tmp_path / "told").read_text(encoding="utf-8") == "0.20"
