"""Telling events to whoever wants to know: what the outbox needs of a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chassis.events.event import Event


class BrokerUnavailable(Exception):  # noqa: N818 - says what is the matter, not that something is wrong with the caller
    """The broker has not said that it has the event; it may have it all the same. Publishing it again is harmless."""


class NotTogether(Exception):  # noqa: N818 - no error: each of them can still be published alone
    """The broker does not take these events as one, and has stored none of them."""


class Publisher(Protocol):
    """A broker, as seen by whoever publishes."""

    async def publish(self, event: Event) -> None:
        """Return when the broker has stored the event; one that it has already, by its id, is stored once.

        Events are stored in the order of these calls only where each call waits for the one before.

        Raises:
            BrokerUnavailable: it has not said so.
        """
        ...

    async def publish_together(self, events: Sequence[Event]) -> None:
        """Return when the broker has stored all of these, in this order; it stores all or none.

        Raises:
            NotTogether: it has none of them. One may be too large, or stored already.
            BrokerUnavailable: it has not said so.
        """
        ...
