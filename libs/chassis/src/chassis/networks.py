"""Which addresses are one client's."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def network(address: str) -> str:
    """The address that one client may have many of: an IPv6 /64 counts as one."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    # Without the zone of a link-local address (`fe80::1%eth0`), which its long form cannot say.
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed)).exploded[:19])
