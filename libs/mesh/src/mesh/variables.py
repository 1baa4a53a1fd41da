"""How a service is told of the policies that the mesh is run with: variables by which its row asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mesh.policies import Policies
from mesh.topology import Service


def _any_if_scaled(policies: Policies) -> str | None:
    """Whoever multiplies the limits of the contract does not want those of a user in the way either."""
    return "0" if policies.rate_limit_scale > 1 else None


# None leaves the service its default.
VALUES: Mapping[str, Callable[[Policies], str | None]] = {
    "RATE_LIMIT_SCALE": lambda policies: str(policies.rate_limit_scale),
    "CONNECTION_SECONDS": lambda policies: str(policies.connection_seconds),
    "ALLOWED_ORIGINS": lambda policies: ",".join(policies.cors_origins),
    "MAX_DECLINED_PAYMENTS": _any_if_scaled,
    "MAX_UNPAID_ORDERS": _any_if_scaled,
    "MAX_UNPAID_PIECES": _any_if_scaled,
}


def of_policies(service: Service, policies: Policies) -> dict[str, str]:
    """What a service is told, by variable."""
    # A name that has no value is a fault of the table, which `mesh.checks` says.
    told = {name: VALUES[name](policies) for name in service.policies if name in VALUES}
    own = {name: value for name, value in told.items() if value is not None}
    return own | {"ADMISSION": str("admission" not in policies.without).lower()}
