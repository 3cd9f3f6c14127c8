"""Which addresses a webhook may reach: none of our own network, unless that is allowed."""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address


def _networks(*texts: str) -> Sequence[IPv4Network | IPv6Network]:
    return [ip_network(text) for text in texts]


_METADATA = _networks(
    "169.254.0.0/16",  # all of link-local
    "fe80::/10",
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure, from the outside an address like any other
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::/32",  # Amazon
    "fd20:ce::/32",  # Google
)
"""Where clouds hand out credentials to whoever asks: not even a closed network's webhook."""

_PRIVATE = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
)

# Beside what the standard library knows, which differs from one Python to the next.
_SPECIAL = _networks(
    "192.0.0.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
)
_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")


def is_private(address: Address) -> bool:
    return _is_in(_unwrap(address), _PRIVATE)


def find_refusal(text: str, *, allow_private: bool) -> str | None:
    """Why nothing is sent to this address; None when it may be."""
    address = _unwrap(ip_address(text))
    if _is_in(address, _METADATA):
        return "a link-local or metadata address"
    if _is_in(address, _PRIVATE):
        return None if allow_private else "a private address"
    if _is_in(address, _SPECIAL) or not address.is_global:
        return "an address that is not public"
    if address.version == 6 and address not in _UNICAST:
        return "an address that is not public"
    return None


def _unwrap(address: Address) -> Address:
    """The IPv4 address that a gateway makes of it. Networks without IPv4 see others only so."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_in(address: Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
