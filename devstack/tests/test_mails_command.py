"""`backend mails`: what the mailbox has taken, shown as text whatever is in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from devstack.cli import app
from devstack.mails import Mailbox
from typer.testing import CliRunner

MAIL = (
    b"From: Shop <shop@backend.example>\r\nTo: ada@example.com\r\nSubject: Hello \x1b[31m\r\nMessage-ID: <1@x.example>\r\n"
    b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nText \x1b]0;evil\x07\r\n'
    b"--b\r\nContent-Type: text/html\r\n\r\n<p>HTML</p>\r\n--b--\r\n"
)


@pytest.fixture
def data_dir(tmp_path: Path) -> str:
    (tmp_path / "state.json").write_text("{}", encoding="utf-8")
    Mailbox(tmp_path / "mails").keep(MAIL, "ada@example.com", datetime(2026, 11, 27, 10, 15, tzinfo=UTC))
    return str(tmp_path)


def said(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_mails_are_listed_and_shown(data_dir: str) -> None:
    status, listed = said("mails", "list", "--json", "--data-dir", data_dir)
    mail = json.loads(listed)
    assert (status, mail["to"], mail["times"], mail["message_id"]) == (0, "ada@example.com", 1, "<1@x.example>")
    status, shown = said("mails", "show", mail["id"], "--data-dir", data_dir)
    assert status == 0
    assert "Message-ID: <1@x.example>" in shown
    assert "Text \\x1b]0;evil\\x07" in shown
    assert "\x1b" not in shown
    assert said("mails", "show", mail["id"], "--html", "--data-dir", data_dir) == (0, "<p>HTML</p>")
    status, listed = said("mails", "list", "--data-dir", data_dir)
    assert status == 0
    assert "\x1b[31m" not in listed
    assert "ada@example.com" in listed


@pytest.mark.parametrize("mail_id", ["0" * 16, "../state", ""])
def test_a_mail_that_is_not_there(data_dir: str, mail_id: str) -> None:
    status, shown = said("mails", "show", mail_id, "--data-dir", data_dir)
    assert (status, "there is no mail" in shown) == (5, True)


def test_which_are_sent_again_has_to_be_said(data_dir: str, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert [said("mails", command, "--data-dir", nowhere)[0] for command in ("list", "queue")] == [3, 3]
    assert said("mails", "again", "--data-dir", data_dir)[0] == 2
