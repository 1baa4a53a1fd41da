"""`make smoke`, of a platform that works, and of those that do not."""

from __future__ import annotations

import os
import subprocess
import sys

from devstack.layout import ROOT

from conftest import People


def smoke(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "tools/smoke.py"],
        env={
            **{name: value for name, value in os.environ.items() if name not in ("EMAIL", "PASSWORD", "URL")},
            **variables,
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


async def test_the_way_of_a_customer_ends_with_an_order(people: People) -> None:
    await people.product()
    url = str(people.http.base_url).rstrip("/")
    done = smoke(URL=url, PAYMENT_TOKEN="tok_approved")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" is paid\n")
    _, login = await people.newcomer()
    done = smoke(URL=url, EMAIL=login.email, PASSWORD=login.password)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" is cancelled\n")


async def test_what_does_not_work_fails_and_says_what(people: People) -> None:
    url = str(people.http.base_url).rstrip("/")
    done = smoke(URL=url, PAYMENT_TOKEN="tok_declined")
    assert (done.returncode, done.stdout) == (1, "")
    assert "402 urn:backend:problem:payment-declined" in done.stderr
    done = smoke(URL=url, EMAIL="nobody@example.com", PASSWORD="not the password")
    assert done.returncode == 1
    assert "401" in done.stderr
    done = smoke(URL="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1: " in done.stderr
    assert "URL is not set" in smoke().stderr
