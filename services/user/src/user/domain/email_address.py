"""One form for every spelling of an email address. It is what is unique, looked up and counted."""

from __future__ import annotations

import re
import unicodedata

import idna
import precis_i18n

from user.domain.errors import InvalidFieldError

_MOST = 254
_MOST_LOCAL = 64
# RFC 5322's dot-atom, with whatever of other scripts the profile lets through (RFC 6531): no quotes, no angle brackets.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_INVISIBLE = re.compile("[\u034f\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# RFC 8265, section 3.3: lower case, full-width to plain, NFC; no control, invisible, private or unassigned characters,
# no white space, no symbols, and no mixture of directions.
_USERNAME = precis_i18n.get_profile("UsernameCaseMapped")


def canonical(address: str) -> str:
    """The form in which two spellings of one address are the same: `Ada@Bücher.example` is `ada@xn--bcher-kva.example`.

    Domains are IDNA 2008 A-labels with the mapping of UTS 46. The case of the local part is ignored. Mail systems may tell `Ada`
    and `ada` apart, but none in use does.

    Raises:
        InvalidFieldError: it is no address, or has characters that only mislead.
    """
    local, at, domain = unicodedata.normalize("NFC", address).rpartition("@")
    try:
        # The mapping of UTS 46 would drop invisible characters; here they are refused.
        if not at or not address.isprintable() or _INVISIBLE.search(domain):
            raise InvalidFieldError("/email", "must be an email address")
        # Checked after the mapping, which turns a full-width angle bracket into an ordinary one.
        local = _USERNAME.enforce(local)
        ascii_domain = idna.encode(domain, uts46=True, std3_rules=True).decode().lower()
    except (UnicodeError, IndexError, ValueError):
        # idna raises IndexError for some empty labels. Its IDNAError is a UnicodeError.
        raise InvalidFieldError("/email", "must be an email address") from None
    form = f"{local}@{ascii_domain}"
    if (
        not _LOCAL.fullmatch(local)
        or len(local.encode()) > _MOST_LOCAL
        or ascii_domain.endswith(".")
        or len(form.encode()) > _MOST
    ):
        raise InvalidFieldError("/email", "must be an email address")
    return form
