"""What is written: safe whatever people are called, and the same however often it is written."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.policy import default
from pathlib import Path
from uuid import UUID

import notification
import pytest
from contracts.common.v1 import money_pb2
from contracts.order.v1 import events_pb2 as order_events
from contracts.order.v1 import order_pb2
from contracts.user.v1 import events_pb2 as user_events
from google.protobuf.timestamp_pb2 import Timestamp
from notification.domain.errors import MailRefusedError
from notification.domain.mail import Mail, MailKind
from notification.gateways.contacts import Contact
from notification.service.formats import FORMATS
from notification.service.letters import Letter, Letters

EVENT = UUID("01920000-0000-7000-8000-00000000abcd")
ADA = Contact("ada@example.com", "Ada")
LETTERS = Letters(Address("Shop", addr_spec="shop@backend.example"), "en")


def order(*names: str) -> order_pb2.Order:
    euros = money_pb2.Money(amount_minor=123450, currency="EUR")
    created_at = Timestamp()
    created_at.FromDatetime(datetime(2026, 11, 27, 9, 30, tzinfo=UTC))
    return order_pb2.Order(
        id="01920000-0000-7000-8000-000000000001",
        items=[order_pb2.OrderItem(name=name, quantity=2, line_total=euros) for name in names or ("Brass lamp",)],
        total=euros,
        created_at=created_at,
    )


def mail(kind: MailKind, *names: str, carrier: str = "DHL") -> Mail:
    told = {
        MailKind.ORDER_PLACED: order_events.OrderPlaced(order=order(*names)),
        MailKind.ORDER_SHIPPED: order_events.OrderShipped(
            order=order(*names), carrier=carrier, tracking_number="JD014600003812345678"
        ),
        MailKind.ORDER_REFUNDED: order_events.OrderRefunded(order=order(*names)),
        MailKind.ORDER_DELIVERED: order_events.OrderDelivered(order=order(*names)),
        MailKind.WELCOME: user_events.UserRegistered(),
    }
    occurred_at = datetime(2026, 11, 27, 10, 15, tzinfo=UTC)
    return Mail(EVENT, kind, UUID(int=1), told[kind].SerializeToString(), occurred_at, "")


def read(letter: Letter) -> tuple[dict[str, str], str, str]:
    """Headers, text and HTML, as a receiver has them."""
    message = message_from_bytes(letter.content, policy=default)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    text, markup = (part.get_content().replace("\r\n", "\n") for part in (plain, html))
    return {name.lower(): str(value) for name, value in message.items()}, text, markup


@pytest.mark.parametrize("kind", list(MailKind))
def test_each_kind_is_written_in_text_and_html(kind: MailKind) -> None:
    letter = LETTERS.write(mail(kind), ADA)
    headers, text, html = read(letter)
    assert (letter.sender, letter.recipient) == ("shop@backend.example", "ada@example.com")
    assert headers["from"] == "Shop <shop@backend.example>"
    assert headers["to"] == "Ada <ada@example.com>"
    assert headers["message-id"] == f"<{EVENT}@backend.example>"
    assert headers["date"] == "Fri, 27 Nov 2026 10:15:00 +0000"
    assert headers["auto-submitted"] == "auto-generated"
    assert headers["subject"]
    assert f"<title>{headers['subject']}</title>" in html
    for body in (text, html):
        assert "Hello Ada," in body
        assert ("1,234.50 EUR" in body) == (kind is not MailKind.WELCOME)
        assert ("switch off" in body) == (not kind.is_required)


def test_a_shipment_says_where_the_parcel_is() -> None:
    _, text, html = read(LETTERS.write(mail(MailKind.ORDER_SHIPPED), ADA))
    assert "Carrier: DHL\nTracking number: JD014600003812345678\n" in text
    assert "JD014600003812345678" in html


def test_the_same_event_makes_the_same_mail() -> None:
    letters = Letters(Address("Shop", addr_spec="shop@backend.example"), "en")
    assert (
        LETTERS.write(mail(MailKind.ORDER_PLACED), ADA).content
        == letters.write(mail(MailKind.ORDER_PLACED), ADA).content
    )


@pytest.mark.parametrize(
    "name",
    [
        "Ada\r\nBcc: everybody@example.com",
        "Ada\nX-Evil: 1",
        "Ada\r\n\r\n<html>",
        "Ada\x00\x0b\x0c\u2028\u2029",
        '"Ada" <evil@example.com>, "x',
        "Ada\u202e gnp.exe",
        "=?utf-8?q?Bcc:=20everybody@example.com?=",
        "=?utf-8?q?Ada=0d=0aBcc:=20everybody@example.com?=",
        "Ada =?utf-8?b?DQpCY2M6IGV2ZXJ5Ym9keUBleGFtcGxlLmNvbQ0K?= =?utf-8?q?=0d=0a=0d=0aBody?=",
        # An encoded word again, once what cannot be seen has gone.
        "=\u202e?utf-8?q?Ada=0d=0aX-Evil:=201?=",
        "Ada" * 33,
    ],
)
def test_no_header_is_made_of_a_name(name: str) -> None:
    letter = LETTERS.write(mail(MailKind.ORDER_PLACED), Contact("ada@example.com", name))
    message = message_from_bytes(letter.content, policy=default)
    assert [field.lower() for field in message] == [
        "from", "to", "subject", "date", "message-id", "auto-submitted", "mime-version", "content-type",
        "content-language",
    ]  # fmt: skip
    assert [address.addr_spec for address in message["to"].addresses] == ["ada@example.com"]
    assert letter.recipient == "ada@example.com"
    assert b"\r\nBcc:" not in letter.content
    assert b"\r\nX-Evil" not in letter.content
    assert all(c.isprintable() for c in str(message["to"]))


@pytest.mark.parametrize(
    "email",
    [
        # Each is an address by its grammar, and an encoded word.
        "=?utf-8?q?ada=0d=0aBcc=3aeverybody?=@example.com",
        "ada.=?utf-8?q?ada=0d=0a=0d=0aBody?=@example.com",
        f"ada@{'ü' * 70}.example",
        "ada@☃.example",
        "ada@",
        "ada",
        "ada\r\nBcc@example.com",
    ],
)
def test_an_address_that_no_mail_can_be_written_to_is_refused(email: str) -> None:
    with pytest.raises(MailRefusedError) as refused:
        LETTERS.write(mail(MailKind.WELCOME), Contact(email, "Ada"))
    assert str(refused.value) == "no mail can be written to such an address"


@pytest.mark.parametrize(
    ("name", "read_as"),
    [
        ("Prize: http://evil.example/?to=ada", "Prize: http: //evil. example/?to=ada"),
        ("evil。example", "evil. example"),
        ("mailto:eve or http://3627734734", "mailto: eve or http: //3627734734"),
        ("ada@evil.example", "ada @ evil. example"),
        ("J.R.R. Tolkien", "J. R. R. Tolkien"),
        ("Ada Lovelace Jr.", "Ada Lovelace Jr."),
    ],
)
def test_nobody_is_sent_a_link_by_whoever_chose_their_name(name: str, read_as: str) -> None:
    headers, text, html = read(LETTERS.write(mail(MailKind.WELCOME), Contact("ada@example.com", name)))
    assert f"Hello {read_as}," in text
    assert f"Hello {read_as}," in html
    assert read_as in headers["to"]


def test_what_strangers_wrote_is_text_in_html() -> None:
    evil = '<script>alert("1")</script><img src=x onerror=alert(1)> & \' "'
    contact = Contact("ada@example.com", evil)
    _, text, html = read(LETTERS.write(mail(MailKind.ORDER_SHIPPED, evil, carrier=evil), contact))
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;") == 3
    # Nobody reads markup in what is plain.
    assert text.count("<script>") == 3


def test_a_name_has_its_joiners_and_a_line_of_an_order_is_one() -> None:
    name = "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    _, text, _ = read(
        LETTERS.write(mail(MailKind.ORDER_PLACED, "Lamp\r\nTotal: 0.00 EUR"), Contact("a@b.example", name))
    )
    assert f"Hello {name}," in text
    assert "2 \u00d7 Lamp Total: 0.00 EUR: 1,234.50 EUR\n" in text


@pytest.mark.parametrize(
    ("email", "recipient"),
    [
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ädä@example.com", "ädä@example.com"),
    ],
)
def test_addresses_of_all_scripts_are_written_to(email: str, recipient: str) -> None:
    letter = LETTERS.write(mail(MailKind.WELCOME), Contact(email, "Ada"))
    assert letter.recipient == recipient
    assert recipient.encode() in letter.content


def test_each_locale_has_a_template_of_each_kind() -> None:
    templates = Path(notification.__file__).parent / "templates"
    wanted = {f"{name}.{form}.j2" for name in (*MailKind, "layout", "order") for form in ("txt", "html")}
    assert {place.name: {file.name for file in place.iterdir()} for place in templates.iterdir()} == dict.fromkeys(
        FORMATS, wanted
    )
