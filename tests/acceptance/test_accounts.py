from __future__ import annotations

import uuid

import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from pytest_bdd import parsers, scenarios, step, then, when
from stories import Story

from conftest import http_client

scenarios("accounts.feature")


def somebody(story: Story, who: str) -> models.LoginRequest:
    """What they log in with, made up where the story has not had them yet."""
    made_up = models.LoginRequest(email=f"{uuid.uuid4()}@example.com", password=f"pw-{uuid.uuid4()}")
    return story.logins.setdefault(who, made_up)


def anonymous(story: Story) -> BackendClient:
    return BackendClient(story.people.http)


def register(story: Story, who: str, email: str, password: str) -> None:
    body = models.RegisterRequest(email=email, password=password, display_name=who)
    story.tries(who, anonymous(story).register(body))


@when(parsers.parse("{who:w} registers"))
def registers(story: Story, who: str) -> None:
    register(story, who, somebody(story, who).email, somebody(story, who).password)


@when(parsers.parse("{who:w} registers with the address of {other:w} in capital letters"))
def registers_with_the_address_of(story: Story, who: str, other: str) -> None:
    register(story, who, story.logins[other].email.upper(), somebody(story, who).password)


@when(parsers.parse('{who:w} registers with the password "{password}"'))
def registers_with_the_password(story: Story, who: str, password: str) -> None:
    register(story, who, somebody(story, who).email, password)


@when(parsers.parse("{who:w} logs in without an account"))
def logs_in_without_an_account(story: Story, who: str) -> None:
    story.log_in(who, somebody(story, who))


@when(parsers.parse("{who:w} logs in with a wrong password"))
def logs_in_with_a_wrong_password(story: Story, who: str) -> None:
    story.log_in(who, models.LoginRequest(email=story.logins[who].email, password="wrong"))


@when(parsers.parse("{who:w} has logged in with a wrong password {times:d} times"))
def has_guessed(story: Story, who: str, times: int) -> None:
    for _ in range(times):
        logs_in_with_a_wrong_password(story, who)
        assert story.told(who) == "The password or the email address is wrong"


@step(parsers.parse("{who:w} is logged in on a phone also"))
def is_logged_in_on_a_phone(story: Story, who: str) -> None:
    story.log_in(f"{who} on the phone", story.logins[who])


@when(parsers.parse("{who:w} logs out"))
def logs_out(story: Story, who: str) -> None:
    story.tries(who, story.clients[who].logout())


@when(parsers.parse("{who:w} changes the password"))
def changes_the_password(story: Story, who: str) -> None:
    body = models.ChangePasswordRequest(current_password=story.logins[who].password, new_password=f"pw-{uuid.uuid4()}")
    story.tries(who, story.clients[who].change_password(body))


@when(parsers.parse("{who:w} ends the session on the phone"))
def ends_the_session_on_the_phone(story: Story, who: str) -> None:
    phone = story.run(story.clients[f"{who} on the phone"].list_my_sessions()).data.items
    (session,) = [session for session in phone if session.current]
    story.tries(who, story.clients[who].revoke_my_session(session.id))


@step(parsers.parse("{who:w} has renewed the session"), target_fixture="used_already")
def has_renewed_the_session(story: Story, who: str) -> str:
    client = anonymous(story)
    first = story.run(client.login(story.logins[who])).data.refresh_token
    assert isinstance(first, str)
    client.access_token = story.run(client.refresh_tokens(models.RefreshRequest(refresh_token=first))).data.access_token
    story.clients[who] = client
    story.run(client.get_me())
    return first


@when(parsers.parse("a thief renews it with a copy of what {who:w} has used already"))
def a_thief_renews_it(story: Story, used_already: str) -> None:
    # From another address: the same client may ask twice, its answer may have been lost.
    thief = http_client(story.people.platform.url)
    with pytest.raises(ApiError):
        story.run(BackendClient(thief).refresh_tokens(models.RefreshRequest(refresh_token=used_already)))
    story.run(thief.aclose())


@then(parsers.parse("{who:w} is logged in"))
def is_logged_in(story: Story, who: str) -> None:
    assert story.run(story.clients[who].get_me()).data.email == story.logins[who].email


@then(parsers.parse("{who:w} is not logged in on the phone any more"))
def is_not_logged_in_on_the_phone_any_more(story: Story, who: str) -> None:
    story.require_no_session(f"{who} on the phone")


@then(parsers.parse("{who:w} has the rights of a customer"))
def has_the_rights_of_a_customer(story: Story, who: str) -> None:
    assert story.run(story.clients[who].get_me()).data.roles == ["customer"]
