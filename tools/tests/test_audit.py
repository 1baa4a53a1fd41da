"""What counts as well, of what advisories say."""

from __future__ import annotations

import audit
import pytest
from audit import AuditError, Dependency

VULNERABLE: Dependency = {
    "name": "old",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}, {"id": "GHSA-2", "fix_versions": []}],
}
WELL: Dependency = {"name": "new", "version": "2.0", "vulns": []}
UNKNOWN: Dependency = {"name": "strange", "skip_reason": "Dependency not found"}


def test_an_index_that_knows_nothing_is_no_index() -> None:
    audit.check_the_index([VULNERABLE])
    for answer in ([], [WELL], [UNKNOWN]):
        with pytest.raises(AuditError, match="what it says of ours means nothing"):
            audit.check_the_index(answer)


def test_what_is_vulnerable_or_could_not_be_looked_up_is_said() -> None:
    audit.check([WELL])
    with pytest.raises(AuditError, match=r"old 1\.0: PYSEC-1, mended in 1\.1\nold 1\.0: GHSA-2, mended in nothing yet"):
        audit.check([WELL, VULNERABLE])
    with pytest.raises(AuditError, match="could not be looked up: strange"):
        audit.check([WELL, UNKNOWN])


def test_an_exemption_is_for_one_advisory_and_not_for_nothing() -> None:
    audit.check([VULNERABLE], {"PYSEC-1": "a", "GHSA-2": "b"})
    with pytest.raises(AuditError, match="GHSA-2"):
        audit.check([VULNERABLE], {"PYSEC-1": "a"})
    with pytest.raises(AuditError, match="exempted, and nothing has it: PYSEC-1"):
        audit.check([WELL], {"PYSEC-1": "a"})


def test_every_lock_is_read() -> None:
    entries = audit.locked()
    names = {entry.partition("==")[0] for entry in entries}
    assert {"uv", "pyvoy", "checkov"} <= names
    assert all(entry.count("==") == 1 for entry in entries)
