"""Of an Envoy's rendered configuration (its bootstrap), what the chassis reads."""

from __future__ import annotations

from typing import NotRequired, TypedDict

# The variable by which an application knows the path of its Envoy's egress socket.
EGRESS_SOCKET = "EGRESS_SOCKET"


class Pipe(TypedDict):
    """A Unix socket; a relative path is one of Envoy's working directory."""

    path: str


class Address(TypedDict):
    """Where something listens, when it is a Unix socket."""

    pipe: Pipe


class Admin(TypedDict):
    """The admin interface."""

    address: Address


class Listener(TypedDict):
    """What Envoy accepts connections on; the egress listener's address is a Unix socket."""

    name: str
    address: Address


class StaticResources(TypedDict):
    """What Envoy listens on and calls."""

    listeners: list[Listener]


class MonitorConfig(TypedDict, total=False):
    """What a resource monitor is told: each kind has one of these."""

    filename: str
    max_active_downstream_connections: int


class Monitor(TypedDict):
    """A resource monitor."""

    name: str
    typed_config: MonitorConfig


class OverloadManager(TypedDict):
    """What Envoy watches, so as not to take more than it can carry."""

    resource_monitors: list[Monitor]


class Bootstrap(TypedDict):
    """The whole."""

    admin: Admin
    static_resources: StaticResources
    # Without, when its policy is left out.
    overload_manager: NotRequired[OverloadManager]


def egress_socket(rendered: Bootstrap) -> str | None:
    """The path of the egress listener; None when the service has no upstreams."""
    for listener in rendered["static_resources"]["listeners"]:
        if listener["name"] == "egress":
            return listener["address"]["pipe"]["path"]
    return None
