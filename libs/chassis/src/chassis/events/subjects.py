"""What things are called at the broker: said here for those who publish and consume, and for `mesh`, which permits it."""

from __future__ import annotations

# The stream of all events, and the one of those that a consumer has given up.
EVENTS = "events"
DEAD_LETTERS = "dead_letters"
# Beside the events, in their stream: those that one consumer is given once more.
REPLAYS = "replays"


def of_type(event_type: str) -> str:
    """Where events of a type are published; a whole package's with `order.v1.*`."""
    return f"{EVENTS}.{event_type}"


def of_dead_letters(consumer: str) -> str:
    """Where a consumer publishes what it has given up."""
    return f"{DEAD_LETTERS}.{consumer}"


def of_replays(consumer: str) -> str:
    """Where one consumer, and no other, is given an event once more."""
    return f"{REPLAYS}.{consumer}"


def inbox(name: str) -> str:
    """Below which an identity, and no other, is answered."""
    return f"_INBOX.{name}"
