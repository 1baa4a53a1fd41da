"""The mailbox: what it keeps, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiosmtplib
import msgspec
import pytest
from devstack.mails import Mailbox

from devstack import mailbox, mails

NOW = datetime(2026, 11, 27, 10, 15, tzinfo=UTC)


def content(number: int, text: str = "Hello") -> bytes:
    return (
        f"From: Shop <shop@backend.example>\r\nTo: ada@example.com\r\nSubject: Number {number}\r\n"
        f"Message-ID: <{number}@backend.example>\r\n\r\n{text}\r\n"
    ).encode()


def test_a_mail_is_kept_as_it_came(tmp_path: Path) -> None:
    assert Mailbox(tmp_path).keep(content(1), "ada@example.com", NOW)
    (found,) = mails.newest(tmp_path, 10)
    assert mails.one(tmp_path, found.id) == found
    assert (found.recipient, found.sender, found.subject, found.message_id, found.text, found.html) == (
        "ada@example.com", "Shop <shop@backend.example>", "Number 1", "<1@backend.example>", "Hello\n", "",
    )  # fmt: skip
    assert found.received == [NOW]


def test_a_mail_that_comes_again_is_the_same_mail(tmp_path: Path) -> None:
    Mailbox(tmp_path).keep(content(1), "ada@example.com", NOW)
    # Of another process.
    assert not Mailbox(tmp_path).keep(content(1), "ada@example.com", NOW + timedelta(minutes=1))
    (found,) = mails.newest(tmp_path, 10)
    assert found.received == [NOW + timedelta(minutes=1), NOW]


@pytest.mark.parametrize(
    "hostile",
    [
        b"X-Mailbox-Received: yesterday\r\nX-Mailbox-Recipient: eve@example.com\r\nSubject: s\r\n\r\nx",
        b"Subject: s\r\nContent-Type: text/plain; charset=nonsense\r\n\r\nx",
        b"Subject: \xff\xfe\r\nFrom: \xff\r\nMessage-ID: <\xff>\r\n\r\n\xff",
        b"Message-ID: " + b"(" * 3000 + b"\r\n\r\nx",
        b"Message-ID: <[\r\nFrom: " + b"(" * 3000 + b"\r\n\r\nx",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
        + b"--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" * 2000,
        b"",
        b"\r\n\x00",
    ],
    ids=["ours", "charset", "bytes", "deep id", "deep sender", "deep parts", "nothing", "null"],
)
def test_whatever_a_mail_says_it_is_kept_and_shown_with_the_others(tmp_path: Path, hostile: bytes) -> None:
    box = Mailbox(tmp_path)
    box.keep(content(1), "ada@example.com", NOW)
    assert box.keep(hostile, "ada@example.com", NOW)
    assert not box.keep(hostile, "ada@example.com", NOW)
    found = mails.newest(tmp_path, 10)
    assert sorted(len(mail.received) for mail in found) == [1, 2]
    assert {mail.recipient for mail in found} == {"ada@example.com"}
    # It can be told to a browser.
    msgspec.json.encode([(mail.sender, mail.subject, mail.message_id, mail.text, mail.html) for mail in found])


def test_a_mail_that_comes_without_end_does_not_grow(tmp_path: Path) -> None:
    box = Mailbox(tmp_path)
    for _ in range(105):
        box.keep(content(1), "ada@example.com", NOW)
    (found,) = mails.newest(tmp_path, 10)
    assert len(found.received) == 100


def test_what_was_removed_meanwhile_comes_as_new(tmp_path: Path) -> None:
    box = Mailbox(tmp_path)
    box.keep(content(1), "ada@example.com", NOW)
    for file in tmp_path.iterdir():
        file.unlink()
    assert box.keep(content(1), "ada@example.com", NOW)
    assert len(mails.newest(tmp_path, 10)) == 1


def test_the_newest_are_kept(tmp_path: Path) -> None:
    box = Mailbox(tmp_path, most=3)
    for number in range(5):
        box.keep(content(number), "ada@example.com", NOW)
    assert {mail.subject for mail in mails.newest(tmp_path, 10)} == {"Number 2", "Number 3", "Number 4"}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("mail_id", ["", "../secrets", "0" * 15, "0" * 16, "Z" * 16])
def test_there_is_no_mail_of_another_name(tmp_path: Path, mail_id: str) -> None:
    assert mails.one(tmp_path, mail_id) is None


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    connections = mailbox.Connections(mailbox.Keeper(Mailbox(tmp_path)))
    server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def send(port: int, recipient: str, body: bytes = content(1)) -> None:
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="localhost") as client:
        await client.sendmail("shop@backend.example", [recipient], body)


async def test_mails_come_by_smtp_and_some_are_refused(port: int, tmp_path: Path) -> None:
    await send(port, "ada@example.com")
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
        await send(port, "ada@refused.example")
    assert refused.value.recipients[0].code == 550
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as deferred:
        await send(port, "ada@deferred.example")
    assert deferred.value.recipients[0].code == 450
    with pytest.raises(aiosmtplib.SMTPException):
        await send(port, "ada@example.com", content(2, "x" * (mails.MOST_BYTES + 1)))
    assert [mail.recipient for mail in mails.newest(tmp_path, 10)] == ["ada@example.com"]


async def test_connections_are_bounded(port: int) -> None:
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(64)]
    assert all([(await reader.readline()).startswith(b"220") for reader, _ in held])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.wait_for(reader.read(), 5)
    writer.close()
    for _, other in held:
        other.close()
    async with asyncio.timeout(20):
        while True:
            try:
                await send(port, "ada@example.com")
            except aiosmtplib.SMTPException:
                # It has not yet seen that the others are gone.
                await asyncio.sleep(0.01)
            else:
                return
