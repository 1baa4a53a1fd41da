"""Under which keys records are kept."""

from __future__ import annotations

import pytest
from chassis.cache import stored_under
from contracts.user.v1.session_pb2 import Session, SessionRecord
from contracts.user.v1.user_pb2 import User


def test_the_contract_says_where_records_are_kept() -> None:
    assert (stored_under(User), stored_under(SessionRecord)) == ("user:", "session:")
    with pytest.raises(ValueError, match=r"user\.v1\.Session has no option"):
        stored_under(Session)
