"""Sockets, bound before anything else is opened: a taken port is found at once."""

import errno
import socket
from collections.abc import Sequence
from typing import Any

from agentflow_server.cli.failures import CANNOT_LISTEN, fail

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

Address = tuple[int, tuple[Any, ...]]


def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`, those of IPv4 first. Leaves when there is none."""
    sockets: list[socket.socket] = []
    try:
        addresses = _find_addresses(host, port)
        for address in addresses:
            try:
                sockets.append(_bind_one(address))
            except OSError as exc:
                # "localhost" names ::1 also on machines without IPv6.
                if exc.errno not in _NO_SUCH_ADDRESS or (address == addresses[-1] and not sockets):
                    raise
    except OSError as exc:
        fail(f"cannot listen on {host}, port {port}: {exc.strerror}", code=CANNOT_LISTEN)
    return sockets


def url_of(host: str, sockets: Sequence[socket.socket], *, encrypted: bool) -> str:
    """An address for this machine's browser."""
    port = sockets[0].getsockname()[1]
    shown = "127.0.0.1" if host in _WILDCARDS else host.strip("[]")
    if ":" in shown:
        shown = f"[{shown}]"
    return f"{'https' if encrypted else 'http'}://{shown}:{port}"


def _find_addresses(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = sorted({(int(family), address) for family, _, _, _, address in found})
    # With port 0 every further address would get a port of its own.
    return addresses[:1] if port == 0 else addresses


def _bind_one(address: Address) -> socket.socket:
    family, where = address
    new = socket.socket(family, socket.SOCK_STREAM)
    try:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        new.bind(where)
    except OSError:
        new.close()
        raise
    return new
