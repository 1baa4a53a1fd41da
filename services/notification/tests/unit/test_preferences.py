"""What users may switch, and what not."""

from __future__ import annotations

from uuid import UUID

import pytest
from notification.domain.errors import AlwaysSentError, StaleVersionError
from notification.domain.mail import MailKind
from notification.domain.preferences import Preferences

NOBODY = UUID(int=1)


def test_who_has_chosen_nothing_gets_everything() -> None:
    assert all(Preferences(NOBODY).wants(kind) for kind in MailKind)


def test_a_kind_is_switched_off_and_on_again() -> None:
    off = Preferences(NOBODY).switched({MailKind.ORDER_DELIVERED: False})
    assert (off.wants(MailKind.ORDER_DELIVERED), off.wants(MailKind.WELCOME), off.version) == (False, True, 2)
    on = off.switched({MailKind.ORDER_DELIVERED: True})
    assert (on.wants(MailKind.ORDER_DELIVERED), on.version) == (True, 3)


def test_what_is_so_already_is_no_change() -> None:
    before = Preferences(NOBODY, frozenset({"welcome"}), 7)
    assert before.switched({MailKind.WELCOME: False, MailKind.ORDER_DELIVERED: True}) is before


@pytest.mark.parametrize("kind", [kind for kind in MailKind if kind.is_required])
@pytest.mark.parametrize("enabled", [True, False])
def test_what_belongs_to_a_transaction_cannot_be_switched(kind: MailKind, enabled: bool) -> None:
    with pytest.raises(AlwaysSentError):
        Preferences(NOBODY).switched({kind: enabled})
    # Whatever a row says.
    assert Preferences(NOBODY, frozenset({kind})).wants(kind)


def test_a_kind_of_a_later_release_stays_switched_off() -> None:
    later = Preferences(NOBODY, frozenset({"product_news"}))
    assert later.switched({MailKind.WELCOME: False}).switched_off == {"product_news", "welcome"}


def test_a_stale_version_is_refused() -> None:
    Preferences(NOBODY).require_version(1)
    Preferences(NOBODY).require_version(None)
    with pytest.raises(StaleVersionError):
        Preferences(NOBODY).require_version(2)
