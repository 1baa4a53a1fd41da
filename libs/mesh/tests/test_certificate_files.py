"""Certificates are read whole while they are replaced."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import pytest
from chassis.certificate_files import client_context
from mesh.certificates import Certificates

FILES = ("tls.crt", "tls.key", "ca.crt")


def test_a_certificate_never_comes_with_the_key_of_another(tmp_path: Path) -> None:
    directory, over = tmp_path / "read", threading.Event()
    directory.mkdir()
    for number in (0, 1):
        Certificates(tmp_path / f"pki-{number}", tmp_path / f"made-{number}").ensure()
        (directory / f"..{number}").symlink_to((tmp_path / f"made-{number}" / "order").resolve())
    (directory / "..data").symlink_to("..0")
    for file in FILES:
        (directory / file).symlink_to(Path("..data") / file)

    def replace() -> None:
        number = 0
        while not over.is_set():
            number = 1 - number
            (directory / "..new").symlink_to(f"..{number}")
            Path(directory / "..new").replace(directory / "..data")

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(300):
            client_context(directory)
    finally:
        over.set()
        thread.join()


def test_files_that_do_not_belong_together_are_an_error(tmp_path: Path) -> None:
    for number in (0, 1):
        Certificates(tmp_path / f"pki-{number}", tmp_path / f"made-{number}").ensure()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, file in zip((0, 1, 0), FILES, strict=True):
        (mixed / file).write_bytes((tmp_path / f"made-{number}" / "order" / file).read_bytes())
    with pytest.raises(ssl.SSLError):
        client_context(mixed)
