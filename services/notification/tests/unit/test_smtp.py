"""Giving mails to a server that says what it likes: what is told of it, and what is never told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from notification.domain.errors import MailDeferredError, MailRefusedError, MailServerUnavailableError
from notification.gateways.smtp import Server, Smtp

CONTENT = b"Message-ID: <1@backend.example>\r\n\r\nHello\r\n"
SENDER, RECIPIENT = "shop@backend.example", "ada@example.com"


@dataclass
class Told:
    """A server's answers, and what it was given."""

    mail: str = "250 OK"
    rcpt: str = "250 OK"
    data: str = "250 OK"
    # Seconds until it says whether it has a mail.
    thinks: float = 0.0
    stays_silent_at: str = ""
    taken: list[bytes] = field(default_factory=list)
    logins: list[bytes] = field(default_factory=list)

    async def handle_MAIL(self, _s: SMTP, _ss: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.mail

    async def handle_RCPT(self, _s: SMTP, _ss: Session, envelope: Envelope, address: str, _options: list[str]) -> str:
        if self.rcpt.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_EHLO(self, _s: SMTP, session: Session, _e: Envelope, hostname: str, said: list[str]) -> list[str]:
        session.host_name = hostname
        await self._silence("EHLO")
        return said

    async def handle_RSET(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:
        await self._silence("RSET")
        return "250 OK"

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:
        await self._silence("QUIT")
        return "221 Bye"

    async def _silence(self, at: str) -> None:
        if self.stays_silent_at == at:
            await asyncio.sleep(30)

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        self.taken.append(envelope.original_content or b"")
        await asyncio.sleep(self.thinks)
        if self.data == "gone":
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return self.data

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.password)
        return AuthResult(success=data.password == b"right", handled=False)


@asynccontextmanager
async def listening(told: Told, context: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[int]:
    """A server on a free port; with a context, TLS from the first byte."""

    def connection() -> SMTP:
        return SMTP(told, hostname="mail.example", enable_SMTPUTF8=True, **options)

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def smtp(port: int, tls: str = "never", user: str = "", **options: Any) -> Smtp:
    server = Server("127.0.0.1", port, tls, user, options.pop("password", ""))
    return Smtp(server, options.pop("timeout", 5), options.pop("patience", 5), **options)


async def test_what_the_server_takes_is_sent_as_it_is() -> None:
    told = Told()
    async with listening(told) as port:
        await smtp(port).send(CONTENT, SENDER, RECIPIENT)
    assert told.taken == [CONTENT]


@pytest.mark.parametrize(
    ("said", "error", "told_of_it"),
    [
        ({"rcpt": "550 5.1.1 <ada@example.com>: no such user"}, MailRefusedError, "the server answered 550 5.1.1"),
        ({"rcpt": "450 4.2.1 ada@example.com is busy"}, MailDeferredError, "the server answered 450 4.2.1"),
        ({"data": "554 what ada@example.com is sent is no mail"}, MailRefusedError, "the server answered 554"),
        ({"data": "452 4.3.1 no room for ada@example.com"}, MailDeferredError, "the server answered 452 4.3.1"),
        ({"data": "421 4.3.2 closing"}, MailDeferredError, "the server answered 421 4.3.2"),
        ({"rcpt": "421 4.7.0 ada@example.com has had enough"}, MailDeferredError, "the server answered 421 4.7.0"),
        ({"mail": "552 5.3.4 too large"}, MailRefusedError, "the server answered 552 5.3.4"),
        (
            {"mail": "550 5.7.1 shop@backend.example may not"},
            MailServerUnavailableError,
            "it refuses our address: 550 5.7.1",
        ),
        ({"data": "gone"}, MailDeferredError, "SMTPServerDisconnected"),
    ],
)
async def test_what_an_answer_means(said: dict[str, str], error: type[Exception], told_of_it: str) -> None:
    async with listening(Told(**said)) as port:  # type: ignore[arg-type]
        with pytest.raises(error) as refused:
            await smtp(port).send(CONTENT, SENDER, RECIPIENT)
    # No address, and no word of the server's.
    assert str(refused.value) == told_of_it
    assert refused.value.__suppress_context__


async def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    async with listening(Told(stays_silent_at="EHLO")) as port:
        with pytest.raises(MailServerUnavailableError, match=r"^SMTPReadTimeoutError$"):
            await smtp(port, timeout=0.2).send(CONTENT, SENDER, RECIPIENT)
        with pytest.raises(MailServerUnavailableError, match=r"^it has not let us in within 0.2 s$"):
            await smtp(port, patience=0.2).send(CONTENT, SENDER, RECIPIENT)


async def test_whether_it_has_a_mail_a_server_may_say_late() -> None:
    told = Told(thinks=0.5)
    async with listening(told) as port:
        await smtp(port, timeout=0.2, patience=0.2).send(CONTENT, SENDER, RECIPIENT)
    assert told.taken == [CONTENT]


async def test_a_mail_that_was_taken_is_sent_however_the_server_takes_its_leave() -> None:
    told = Told(stays_silent_at="QUIT")
    async with listening(told) as port, asyncio.timeout(3):
        await smtp(port).send(CONTENT, SENDER, RECIPIENT)
    assert told.taken == [CONTENT]


async def test_a_mail_that_was_refused_is_refused_whatever_the_server_says_then() -> None:
    async with listening(Told(rcpt="550 5.1.1 nobody", stays_silent_at="RSET")) as port, asyncio.timeout(3):
        with pytest.raises(MailRefusedError, match=r"550 5\.1\.1"):
            await smtp(port).send(CONTENT, SENDER, RECIPIENT)


@asynccontextmanager
async def flooding(*first: bytes) -> AsyncIterator[int]:
    """A server that answers so far, and then with lines without end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for answer in first:
                writer.write(answer)
                await reader.readline()
            while True:
                writer.write(b"250-more\r\n" * 1000)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("first", "error"),
    [
        ((), MailServerUnavailableError),
        ((b"220 mail.example\r\n",), MailServerUnavailableError),
        ((b"220 mail.example\r\n", b"250 OK\r\n", b"250 OK\r\n"), MailDeferredError),
    ],
)
async def test_of_an_answer_without_end_nobody_reads_more_than_answers_are_long(
    first: tuple[bytes, ...], error: type[Exception]
) -> None:
    async with flooding(*first) as port, asyncio.timeout(3):
        with pytest.raises(error, match=r" -1$"):
            await smtp(port).send(CONTENT, SENDER, RECIPIENT)


async def test_of_a_server_that_reads_no_more_nothing_is_left() -> None:
    left, read = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"220 mail.example", b"250 OK", b"250 OK", b"250 OK"):
            writer.write(answer + b"\r\n")
            await reader.readline()
        writer.write(b"354 go on\r\n")
        await left.wait()
        count = 0
        with suppress(ConnectionError):
            while part := await reader.read(1024 * 1024):
                count += len(part)
        read.set_result(count)
        writer.close()

    server, content = await asyncio.start_server(serve, "127.0.0.1", 0), b"x" * 64 * 1024 * 1024
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await smtp(server.sockets[0].getsockname()[1]).send(content, SENDER, RECIPIENT)
    left.set()
    # No more than what was on the way: the rest is not kept for whenever the server reads it.
    assert await read < len(content)
    server.close()


async def test_an_address_at_which_the_server_does_not_know_us_speaks_against_one_mail() -> None:
    """Nobody keeps the mails of others by an address of another script."""
    async with listening(Told(mail="550 5.6.7 not here")) as port:
        with pytest.raises(MailRefusedError, match=r"550 5\.6\.7"):
            await smtp(port).send(CONTENT, SENDER, "ädä@example.com")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with listening(Told()) as port:
        pass
    with pytest.raises(MailServerUnavailableError):
        await smtp(port).send(CONTENT, SENDER, RECIPIENT)


async def test_an_address_of_another_script_is_refused_by_a_server_that_knows_none() -> None:
    told = Told()
    async with listening(told) as port:
        await smtp(port).send(CONTENT, SENDER, "ädä@example.com")

    class Old(SMTP):
        async def smtp_EHLO(self, hostname: str) -> None:
            await self.push("502 what is that")

    server = await asyncio.get_running_loop().create_server(lambda: Old(told), "127.0.0.1", 0)
    with pytest.raises(MailRefusedError, match="takes no such address"):
        await smtp(server.sockets[0].getsockname()[1]).send(CONTENT, SENDER, "ädä@example.com")
    server.close()
    assert len(told.taken) == 1


@dataclass(frozen=True)
class Tls:
    """A server's certificate, and somebody's who trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "mail.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    return Tls(server, ssl.create_default_context(cafile=str(file)))


async def test_over_tls_from_the_first_byte_and_by_starttls(tls: Tls) -> None:
    told = Told()
    async with listening(told, tls.server) as port:
        await smtp(port, "implicit", context=tls.client).send(CONTENT, SENDER, RECIPIENT)
    async with listening(told, tls_context=tls.server, require_starttls=True) as port:
        await smtp(port, "starttls", context=tls.client).send(CONTENT, SENDER, RECIPIENT)
    assert told.taken == [CONTENT, CONTENT]


async def test_a_server_nobody_vouches_for_is_told_nothing(tls: Tls) -> None:
    told = Told()
    async with listening(told, tls.server) as port:
        with pytest.raises(MailServerUnavailableError, match=r"^SMTPConnectError$|^SSLCertVerificationError$"):
            await smtp(port, "implicit").send(CONTENT, SENDER, RECIPIENT)
    async with listening(told, tls_context=tls.server) as port:
        with pytest.raises(MailServerUnavailableError):
            await smtp(port, "starttls").send(CONTENT, SENDER, RECIPIENT)
    assert told.taken == []


async def test_a_server_without_starttls_is_told_nothing() -> None:
    told = Told()
    async with listening(told) as port:
        with pytest.raises(MailServerUnavailableError):
            await smtp(port, "starttls", "shop", password="right").send(CONTENT, SENDER, RECIPIENT)
    assert (told.taken, told.logins) == ([], [])


async def test_the_password_is_read_for_each_connection_and_either_line_will_do(tls: Tls, tmp_path: Path) -> None:
    told, file = Told(), tmp_path / "password"
    options: dict[str, Any] = {"tls_context": tls.server, "authenticator": told.authenticate, "auth_required": True}
    async with listening(told, **options) as port:
        server = smtp(port, "starttls", "shop", password_file=file, context=tls.client)
        with pytest.raises(MailServerUnavailableError, match=r"^FileNotFoundError$"):
            await server.send(CONTENT, SENDER, RECIPIENT)
        file.write_text("wrong\n", encoding="utf-8")
        with pytest.raises(MailServerUnavailableError, match=r"^it does not know us: 535 5.7.8$"):
            await server.send(CONTENT, SENDER, RECIPIENT)
        file.write_text("wrong\nright\n", encoding="utf-8")
        await server.send(CONTENT, SENDER, RECIPIENT)
    assert told.taken == [CONTENT]
