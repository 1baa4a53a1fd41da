"""Of an Envoy's rendered configuration (its bootstrap), what the chassis reads."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Pipe(TypedDict):
    """A Unix socket; a relative path is one of Envoy's working directory."""

    path: str


class Address(TypedDict):
    """Where something listens."""

    pipe: Pipe


class Admin(TypedDict):
    """The admin interface."""

    address: Address


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
    # Without, when its policy is left out.
    overload_manager: NotRequired[OverloadManager]
