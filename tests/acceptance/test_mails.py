from __future__ import annotations

import mailing
from contracts.bff.v1 import models
from pytest_bdd import given, parsers, scenarios, then
from stories import Story

scenarios("mails.feature")


@given(parsers.parse("{who:w} has switched off mails about arrivals"))
def has_switched_off(story: Story, who: str) -> None:
    wanted = models.UpdateNotificationsRequest(order_delivered=False)
    story.tries(who, story.clients[who].update_my_notifications(wanted))


@then(parsers.parse("{who:w} gets these mails and no others: {subjects}"))
def gets_these_mails(story: Story, who: str, subjects: str) -> None:
    story.require_no_refusal()
    expected = sorted(subjects.split(", "))
    email = story.logins[who].email
    found = story.run(mailing.arrived(story.people.platform, email, lambda mails: len(mails) >= len(expected)))
    # Those to one person come in the order of the events of one order: after the refund's there is none to come.
    assert sorted(mail.subject for mail in found) == expected


@then(parsers.parse('the mail "{subject}" to {who:w} says "{words}"'))
def the_mail_says(story: Story, subject: str, who: str, words: str) -> None:
    email = story.logins[who].email
    found = story.run(
        mailing.arrived(story.people.platform, email, lambda mails: any(mail.subject == subject for mail in mails))
    )
    (mail,) = (mail for mail in found if mail.subject == subject)
    assert words in mail.text


@then(parsers.parse("{who:w} can switch off mails about arrivals and the welcome alone"))
def can_switch_off(story: Story, who: str) -> None:
    kinds = story.run(story.clients[who].get_my_notifications()).data.items
    assert {one.kind for one in kinds if not one.required} == {"order_delivered", "welcome"}
