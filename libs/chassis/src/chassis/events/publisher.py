"""Telling events to whoever wants to know: what the outbox needs of a broker."""

from __future__ import annotations

from typing import Protocol

from chassis.events.event import Event


class BrokerUnavailable(Exception):  # noqa: N818 - says what is the matter, not that something is wrong with the caller
    """The broker has not said that it has the event; it may have it all the same. Publishing it again is harmless."""


class Publisher(Protocol):
    """A broker, as seen by whoever publishes."""

    async def publish(self, event: Event) -> None:
        """Return when the broker has stored the event; one that it has already, by its id, is stored once.

        Events are stored in the order of these calls only where each call waits for the one before.

        Raises:
            BrokerUnavailable: it has not said so.
        """
        ...
