"""What is done to keys and certificates is a line of the log, of the shape that services write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from chassis.audit import acts, lines
from devstack.commands import admins as admin_commands
from devstack.commands import certificates as certificate_commands
from devstack.commands import keys as key_commands
from devstack.layout import Layout
from mesh.certificates import PUBLIC, WORKLOADS, Certificates
from typer.testing import CliRunner

from devstack import audit, keys, upkeep


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    # What says that there is a stack.
    made.state_file.touch()
    keys.ensure(made)
    Certificates(made.pki, made.certificates).ensure()
    return made


def told(layout: Layout) -> list[dict[str, Any]]:
    path = layout.logs / "audit.log"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def run(app: Any, layout: Layout, *arguments: str) -> None:
    done = CliRunner().invoke(app, [*arguments, "--data-dir", str(layout.data_dir)])
    assert done.exit_code == 0, done.output


async def until_told(layout: Layout, work: Coroutine[Any, Any, None], count: int) -> list[dict[str, Any]]:
    """What is told while something runs that runs for ever, once that is so much."""
    running = asyncio.create_task(work)
    async with asyncio.timeout(20):
        while len(found := told(layout)) < count:
            assert not running.done(), running
            await asyncio.sleep(0.02)
    running.cancel()
    return found


def test_new_keys_and_revoked_ones_are_told_with_who_did_it(layout: Layout) -> None:
    (first,) = [state.kid for state in keys.states(layout)]
    run(key_commands.app, layout, "rotate")
    second = keys.states(layout)[-1].kid
    run(key_commands.app, layout, "revoke", first)
    rotated, revoked = told(layout)
    assert (rotated["action"], rotated["subject"], rotated["actor"]) == (
        "key.rotated",
        f"key/{second}",
        acts.operator(),
    )
    assert (revoked["action"], revoked["subject"]) == ("key.revoked", f"key/{first}")
    # The same members as the line of a service.
    act = acts.act("key.revoked", f"key/{first}", datetime.now(UTC), actor="")
    assert revoked.keys() == {"event", "level", "time", "service", *lines.members(act)}
    assert revoked["event"] == "audit"


def test_who_did_it_is_not_what_they_call_themselves(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    known = acts.operator()
    # The second is longer than a name in the trail may be.
    for number, name in enumerate(("somebody-else", "x" * 200), 1):
        for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.setenv(variable, name)
        run(key_commands.app, layout, "rotate")
        assert [line["actor"] for line in told(layout)] == [known] * number


def test_certificates_that_are_replaced_are_told_one_by_one(layout: Layout) -> None:
    before = {issued.name: issued.serial for issued in Certificates(layout.pki, layout.certificates).issued()}
    run(certificate_commands.app, layout, "rotate")
    after = {issued.name: issued.serial for issued in Certificates(layout.pki, layout.certificates).issued()}
    found = told(layout)
    assert {line["subject"]: (line["before"]["serial"], line["after"]["serial"]) for line in found} == {
        f"certificate/{name}": (before[name], after[name]) for name in (*WORKLOADS, PUBLIC)
    }
    assert {(line["action"], line["actor"]) for line in found} == {("certificate.replaced", acts.operator())}
    assert "PRIVATE KEY" not in str(found)


async def test_what_the_supervisor_renews_and_retires_is_told_as_its_own(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(layout.pki, layout.certificates, timedelta(seconds=2))
    certificates.rotate()
    count = len((*WORKLOADS, PUBLIC))
    renewed = await until_told(layout, upkeep.renew_certificates(layout, certificates, lambda *_: None), count)
    assert {(line["action"], line["actor"]) for line in renewed} == {("certificate.replaced", audit.SUPERVISOR)}
    assert {line["subject"] for line in renewed} == {f"certificate/{name}" for name in (*WORKLOADS, PUBLIC)}
    monkeypatch.setattr(upkeep, "_RETIREMENT_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(keys, "retire", lambda *_: ["old"])
    *_, retired = await until_told(layout, upkeep.retire_keys(layout, lambda *_: None), len(told(layout)) + 1)
    assert (retired["action"], retired["subject"], retired["actor"]) == ("key.retired", "key/old", audit.SUPERVISOR)


def test_what_has_been_done_stays_done_when_it_cannot_be_told(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    (layout.logs / "audit.log").mkdir(parents=True)
    audit.tell(layout, "key.rotated", "key/1", acts.operator())
    assert "key.rotated key/1 could not be written to the audit log" in capsys.readouterr().err


@pytest.mark.parametrize("kid", ["-LZZC5ajaSYUHuhjzdJ2LQGJXLWI8C58dPZf76j7hDI", "--data", "-h", "-"])
def test_a_key_whose_name_begins_like_an_option_can_be_named(layout: Layout, kid: str) -> None:
    done = CliRunner().invoke(key_commands.app, ["revoke", kid, "--data-dir", str(layout.data_dir)])
    assert f"there is no key {kid};" in " ".join(done.output.split()).replace("- ", "-"), done.output


def test_an_address_that_begins_like_an_option_is_an_address(layout: Layout) -> None:
    arguments = ["-al@example.com", "--data-dir", str(layout.data_dir)]
    done = CliRunner().invoke(admin_commands.app, arguments)
    assert "not running" in done.output, done.output
