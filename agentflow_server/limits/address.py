"""Whom a request comes from: the socket's peer, or who a trusted proxy says it was."""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from agentflow_server.errors import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_HOST_BITS = 64
_MAX_HOPS = 32
"""No chain of proxies is longer; whatever stands further left was written by the client."""


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """`limits.trusted_proxies`, addresses or CIDRs. Raises ConfigError."""
    try:
        return tuple(map(ip_network, texts))
    except ValueError as exc:
        raise ConfigError(f"limits.trusted_proxies: {exc}") from None


def client_address(scope_client: str, headers: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address of the client, given the socket's and the values of X-Forwarded-For.

    A header counts only when the peer is a trusted proxy. Read from the right, where the proxies
    append, the first hop that is not trusted is the client: further left he writes what he likes.
    A hop that is no address makes the whole header void.
    """
    if not trusted:
        return scope_client
    peer = _parse(scope_client)
    if peer is None or not _is_among(peer, trusted):
        return scope_client
    for hop in reversed(",".join(headers).split(",")[-_MAX_HOPS:]):
        address = _parse_hop(hop.strip(" \t"))
        if address is None:
            return scope_client
        peer = address
        if not _is_among(address, trusted):
            break
    return str(peer)


def limit_key(address: str) -> str:
    """What is counted together: an IPv4 address, the /64 of an IPv6 one.

    A /64 is what a single customer gets; he could use a new address of it for every request.
    """
    if ":" not in address:
        return address
    parsed = _parse(address)
    if not isinstance(parsed, IPv6Address):
        return address if parsed is None else str(parsed)
    network = int(parsed) >> _HOST_BITS << _HOST_BITS
    return f"{IPv6Address(network)}/{_HOST_BITS}"


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        # How a socket for both families shows an IPv4 peer.
        return address.ipv4_mapped
    return address


def _parse_hop(text: str) -> Address | None:
    """Some proxies add the port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if text.startswith("["):
        text, closed, port = text[1:].partition("]")
        if not closed or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(f":{port}"):
            return None
    return _parse(text)


def _is_port(text: str) -> bool:
    digits = text.removeprefix(":")
    return text.startswith(":") and digits.isascii() and digits.isdigit() and len(digits) <= 5


def _is_among(address: Address, networks: Sequence[Network]) -> bool:
    # `in` is False for a network of the other family.
    return any(address in network for network in networks)
