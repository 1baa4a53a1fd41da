"""What is written: a mail of an event and of whoever it goes to, in HTML and as plain text.

The same event makes the same mail, byte for byte, however often it is made: its Message-ID, its date and its boundary are
the event's. A receiver that has it already can tell (RFC 5322, section 3.6.4).

What people and shops have called themselves and their things is text of strangers. It is brought onto one line, without
characters that cannot be seen or that turn the direction of text; HTML escapes it; and no header can be made of it. Whoever
registers with somebody else's address chooses the name by which that person is greeted: it is no link.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from pathlib import Path

import idna
import jinja2
from contracts.order.v1 import events_pb2 as order_events
from contracts.order.v1 import order_pb2

from notification.domain.errors import MailRefusedError
from notification.domain.mail import Mail, MailKind
from notification.gateways.contacts import Contact
from notification.service.formats import FORMATS, Format

# Words of some scripts, and some emoji, have them inside.
_JOINERS = "\u200c\u200d"
_TEMPLATES = Path(__file__).parent.parent / "templates"
# Where an encoded word begins (RFC 2047). The library decodes them in what it is given as text, line ends included, and
# writes those as they are.
_ENCODED_WORD = "=?"
# What mail programs make links by: a dot or what IDNA takes for one, a scheme's colon, an at sign. Apart, they make none.
_APART = str.maketrans({**dict.fromkeys(".\u3002\uff0e\uff61", ". "), ":": ": ", "@": " @ "})


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an order, as it is read."""

    name: str
    quantity: int
    total: str


@dataclass(frozen=True, slots=True)
class OrderShown:
    """An order, as it is read."""

    id: str
    placed_at: str
    lines: tuple[Line, ...]
    total: str


@dataclass(frozen=True, slots=True, repr=False)
class Letter:
    """A mail as a server is given it (RFC 5322), with its envelope."""

    sender: str
    recipient: str
    content: bytes


class Letters:
    """Writes mails.

    Args:
        sender: whom they come from.
        locale: a directory of templates.
    """

    def __init__(self, sender: Address, locale: str) -> None:
        self._sender = sender
        self._locale = locale
        self._format = FORMATS[locale]
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def write(self, mail: Mail, contact: Contact) -> Letter:
        """The mail.

        Raises:
            MailRefusedError: it is no address to which a mail can be written.
            google.protobuf.message.DecodeError, KeyError, ValueError: the event's message cannot be read.
        """
        told: dict[str, object] = {
            "name": _name(contact),
            "is_required": mail.kind.is_required,
            **_told(mail, self._format),
        }
        text = self._templates.get_template(f"{self._locale}/{mail.kind}.txt.j2")
        html = self._templates.get_template(f"{self._locale}/{mail.kind}.html.j2")
        subject = "".join(text.blocks["subject"](text.new_context(told)))
        recipient = _recipient(contact)
        return Letter(
            sender=self._sender.addr_spec,
            recipient=recipient.addr_spec,
            content=self._message(mail, recipient, _one_line(subject), text.render(told), html.render(told)),
        )

    def _message(self, mail: Mail, recipient: Address, subject: str, text: str, html: str) -> bytes:
        # Letters of other scripts in front of the @ are for servers that know RFC 6531.
        message = EmailMessage(policy=SMTP if recipient.addr_spec.isascii() else SMTPUTF8)
        message["From"] = self._sender
        message["To"] = recipient
        message["Subject"] = subject
        message["Date"] = format_datetime(mail.occurred_at)
        message["Message-ID"] = f"<{mail.event_id}@{self._sender.domain}>"
        # RFC 3834: nobody's holiday is to answer this.
        message["Auto-Submitted"] = "auto-generated"
        # Servers need not take more than seven bits (RFC 6152), nor lines of more than 998 bytes.
        message.set_content(text, cte="quoted-printable")
        message.add_alternative(html, subtype="html", cte="quoted-printable")
        message["Content-Language"] = self._locale
        message.set_boundary(f"=_{mail.event_id.hex}")
        return message.as_bytes()


def _recipient(contact: Contact) -> Address:
    """Whom it goes to; by a domain that every server can look up (RFC 5890).

    Raises:
        MailRefusedError: it is no address to which a mail can be written.
    """
    local, _, domain = contact.email.rpartition("@")
    try:
        domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
        recipient = Address(_name(contact), local, domain)
    except (ValueError, IndexError):
        # idna raises IndexError for some empty labels.
        raise MailRefusedError("no mail can be written to such an address") from None
    if not local or not domain or _ENCODED_WORD in contact.email:
        raise MailRefusedError("no mail can be written to such an address")
    return recipient


def _name(contact: Contact) -> str:
    """What somebody has called themselves, which nothing reads as anything but a name."""
    return _one_line(contact.display_name.translate(_APART)).replace(_ENCODED_WORD, "= ?")


def _one_line(text: str) -> str:
    """Text of strangers, on one line, of characters that are seen where they stand."""
    return " ".join("".join(c if c.isprintable() or c in _JOINERS else " " for c in text).split())


def _told(mail: Mail, written: Format) -> dict[str, object]:
    """What a template of each kind has to say, beside the name."""
    match mail.kind:
        case MailKind.WELCOME:
            return {"registered_at": written.when(mail.occurred_at)}
        case MailKind.ORDER_PLACED:
            return {"order": _shown(order_events.OrderPlaced.FromString(mail.data).order, written)}
        case MailKind.ORDER_DELIVERED:
            delivered = order_events.OrderDelivered.FromString(mail.data)
            return {"order": _shown(delivered.order, written), "delivered_at": written.when(mail.occurred_at)}
        case MailKind.ORDER_REFUNDED:
            return {"order": _shown(order_events.OrderRefunded.FromString(mail.data).order, written)}
        case MailKind.ORDER_SHIPPED:
            shipped = order_events.OrderShipped.FromString(mail.data)
            return {
                "order": _shown(shipped.order, written),
                "carrier": _one_line(shipped.carrier),
                "tracking_number": _one_line(shipped.tracking_number),
            }


def _shown(order: order_pb2.Order, written: Format) -> OrderShown:
    return OrderShown(
        id=order.id,
        placed_at=written.when(order.created_at.ToDatetime(tzinfo=UTC)),
        lines=tuple(
            Line(
                name=_one_line(item.name),
                quantity=item.quantity,
                total=written.money(item.line_total.amount_minor, item.line_total.currency),
            )
            for item in order.items
        ),
        total=written.money(order.total.amount_minor, order.total.currency),
    )
