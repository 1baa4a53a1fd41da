"""The mail server: any that speaks SMTP (RFC 5321), found by a URL.

    smtps://USER@HOST:465                       TLS from the first byte (RFC 8314)
    smtp://USER@HOST:587                        STARTTLS, and nothing is said before it
    smtp://HOST:25?starttls=never               in the clear, where the network is one's own

What a server says may have addresses in it ("550 no such user: ..."). Of it, only the numbers go any further.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosmtplib
from chassis.password_files import passwords

from notification.domain.errors import MailDeferredError, MailRefusedError, MailServerUnavailableError

_PORTS = {"smtp": 587, "smtps": 465}
_STARTTLS = ("required", "never")
# RFC 3463: class, subject, detail.
_ENHANCED = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")
# RFC 1870, section 6.1: said of a sender, it is about the mail.
_TOO_LARGE = 552


@dataclass(frozen=True, slots=True)
class Server:
    """Where mails are given.

    Attributes:
        tls: "implicit", "starttls" or "never".
        user: who we are there; empty: nobody in particular.
        password: theirs, when the URL has it.
    """

    host: str
    port: int
    tls: str
    user: str
    password: str

    @classmethod
    def of(cls, url: str) -> Server:
        """The server of a URL.

        Raises:
            ValueError: it is none; the message says why, and has nothing of it.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS:
            raise ValueError("begins with smtp:// (STARTTLS) or smtps:// (TLS from the first byte)")
        if not parts.hostname or parts.path.strip("/") or parts.fragment:
            raise ValueError("is smtp://[USER@]HOST[:PORT] or smtps://…, without a path")
        try:
            port = parts.port or _PORTS[parts.scheme]
        except ValueError:
            raise ValueError("has a port that is none") from None
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        starttls = options.pop("starttls", "required")
        if options or starttls not in _STARTTLS or (parts.scheme == "smtps" and parts.query):
            raise ValueError("may end with ?starttls=required or ?starttls=never, for smtp:// alone")
        tls = "implicit" if parts.scheme == "smtps" else "starttls" if starttls == "required" else "never"
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if user and tls == "never":
            raise ValueError("has a user, and ?starttls=never: the password would be sent in the clear")
        return cls(parts.hostname, port, tls, user, password)


class MailServer(Protocol):
    """Who takes mails."""

    async def send(self, content: bytes, sender: str, recipient: str) -> None:
        """Give it a mail; returns when it has said that it has it.

        Raises:
            MailServerUnavailableError: it cannot be reached, or takes none from us.
            MailDeferredError: it does not take this one now, or has not said that it has.
            MailRefusedError: it never will.
        """
        ...


class Smtp:
    """See `MailServer`; a connection for each mail.

    Args:
        server: which.
        timeout: seconds for each of its answers, but for whether it has a mail that it was given. For that it has the caller's
            patience: a mail is sent twice when somebody goes away meanwhile (RFC 5321, section 4.5.3.2.6).
        patience: seconds until it lets us in, all answers together.
        password_file: of the password that the URL leaves out.
        context: whom we trust; by default the certificate authorities of this machine.
    """

    def __init__(
        self,
        server: Server,
        timeout: float,
        patience: float,
        password_file: Path | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._server = server
        self._timeout = timeout
        self._patience = patience
        self._password_file = password_file
        self._context = context or ssl.create_default_context()

    async def send(self, content: bytes, sender: str, recipient: str) -> None:
        """See `MailServer`."""
        client = await self._connected()
        # To an address with letters of other scripts only a server that knows RFC 6531 can send.
        is_international = not recipient.isascii()
        try:
            options = _options(client, content, is_international=is_international)
            encoding = "utf-8" if is_international else "ascii"
            await client.mail(sender, options=options, encoding=encoding)
            await client.rcpt(recipient, encoding=encoding)
            await client.data(content, timeout=None)
        except ValueError:
            raise MailRefusedError("the server takes no such address") from None
        except aiosmtplib.SMTPSenderRefused as error:
            if is_international or error.code == _TOO_LARGE:
                raise _of_mail(error) from None
            # Of every mail of ours: whoever operates this has to see to it.
            raise MailServerUnavailableError(f"it refuses our address: {_numbers(error)}") from None
        except aiosmtplib.SMTPResponseException as error:
            raise _of_mail(error) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            # It may have the mail all the same. Counted as an attempt of this one, or a mail that makes a server hang or fall
            # would be sent without end.
            raise MailDeferredError(type(error).__name__) from None
        finally:
            _leave(client)

    async def _connected(self) -> aiosmtplib.SMTP:
        try:
            async with asyncio.timeout(self._patience):
                return await self._known()
        except TimeoutError:
            raise MailServerUnavailableError(f"it has not let us in within {self._patience:g} s") from None

    async def _known(self) -> aiosmtplib.SMTP:
        refusal = MailServerUnavailableError("the file of its password is empty")
        try:
            for password in self._passwords():
                client = self._client(password)
                try:
                    await client.connect()
                    await _greet(client)
                except aiosmtplib.SMTPAuthenticationError as error:
                    refusal = MailServerUnavailableError(f"it does not know us: {_numbers(error)}")
                else:
                    return client
        except aiosmtplib.SMTPResponseException as error:
            raise MailServerUnavailableError(f"it answered {_numbers(error)}") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            # A host that is not there, a certificate that is not trusted, a file of the password that cannot be read.
            raise MailServerUnavailableError(type(error).__name__) from None
        raise refusal

    def _client(self, password: str | None) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=self._server.host,
            port=self._server.port,
            username=self._server.user or None,
            password=password,
            timeout=self._timeout,
            use_tls=self._server.tls == "implicit",
            start_tls=self._server.tls == "starttls",
            tls_context=self._context if self._server.tls != "never" else None,
            # Else the machine's name is looked up, which may take seconds, and is told to strangers.
            local_hostname="localhost",
        )

    def _passwords(self) -> Iterable[str | None]:
        if not self._server.user or self._password_file is None:
            return [self._server.password or None]
        return passwords(self._password_file)


async def _greet(client: aiosmtplib.SMTP) -> None:
    """Hear what the server can do, unless it has said so already."""
    if not client.is_ehlo_or_helo_needed:
        return
    try:
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError:
            # It is older than extensions are.
            await client.helo()
    except BaseException:
        client.close()
        raise


def _options(client: aiosmtplib.SMTP, content: bytes, *, is_international: bool) -> list[str]:
    """What is said of a mail before it is sent.

    Raises:
        ValueError: the server does not take mails to addresses like this.
    """
    options = [f"SIZE={len(content)}"] if client.supports_extension("size") else []
    if is_international:
        if not client.supports_extension("smtputf8"):
            raise ValueError("SMTPUTF8")
        options.append("SMTPUTF8")
    return options


def _leave(client: aiosmtplib.SMTP) -> None:
    # The mail is there or is not: how the server takes its leave changes nothing, and is not waited for. Whoever waits may be
    # cancelled there, and takes a mail that was sent for one that was not.
    transport = client.transport
    if isinstance(transport, asyncio.WriteTransport) and not transport.is_closing():
        transport.write(b"QUIT\r\n")
        if transport.get_write_buffer_size():
            # It has stopped reading, and would be waited for without end.
            transport.abort()
    client.close()


def _of_mail(error: aiosmtplib.SMTPResponseException) -> Exception:
    """What a reply to one mail means: 5yz is for good (RFC 5321, section 4.2.1), anything else is not.

    Nor is 421, with which a server ends the connection: were it no attempt, a mail at which a server always does so would be
    sent without end, and keep others waiting each time.
    """
    said = f"the server answered {_numbers(error)}"
    return MailRefusedError(said) if 500 <= error.code < 600 else MailDeferredError(said)


def _numbers(error: aiosmtplib.SMTPResponseException) -> str:
    """A reply's codes, and none of its words."""
    enhanced = _ENHANCED.search(str(error.message))
    return f"{error.code} {enhanced[0]}" if enhanced else str(error.code)
