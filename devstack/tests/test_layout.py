"""A data directory is its owner's alone, also while others work in it."""

from __future__ import annotations

import threading
from pathlib import Path

from devstack.layout import Layout


def test_everything_in_it_is_its_owners_alone_and_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("", encoding="utf-8")
    outside.chmod(0o644)
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    (data / "logs" / "order.log").write_text("", encoding="utf-8")
    (data / "logs" / "order.log").chmod(0o644)
    (data / "elsewhere").symlink_to(outside)
    Layout(data).make()
    for path in (data, data / "logs", data / "logs" / "order.log"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert outside.stat().st_mode & 0o077 == 0o044


def test_files_and_directories_that_others_rename_and_remove_meanwhile_end_nothing(tmp_path: Path) -> None:
    data, over = tmp_path / "data", threading.Event()
    layout = Layout(data)
    layout.make()

    def work() -> None:
        while not over.is_set():
            for number in range(20):
                made = data / f"pki-{number}"
                made.mkdir(mode=0o755)
                (made / "root.new").write_text("", encoding="utf-8")
                (made / "root.new").rename(made / "root")
                (made / "root").unlink()
                made.rmdir()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(300):
            layout.make()
    finally:
        over.set()
        thread.join()
