"""How long a client of a stream waits for the first of the answer."""

import socket
import time
from collections.abc import Sequence

from benchmarks.load import HOST, TIMEOUT
from benchmarks.peers.contenders import REPLY


def time_first_reply(port: int, requests: Sequence[bytes]) -> list[float]:
    """Seconds from the request to the bytes with which the agent's own words begin."""
    delays: list[float] = []
    with socket.create_connection((HOST, port), timeout=TIMEOUT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for request in requests:
            delays.append(_time_one(connection, request))
    return delays


def _time_one(connection: socket.socket, request: bytes) -> float:
    begun = time.perf_counter()
    connection.sendall(request)
    received, delay = b"", None
    while not received.endswith(b"\r\n0\r\n\r\n"):
        chunk = connection.recv(65_536)
        if not chunk:
            raise RuntimeError(f"the stream was cut off: {received[-300:]!r}")
        received += chunk
        if delay is None and REPLY in received:
            delay = time.perf_counter() - begun
    if delay is None:
        raise RuntimeError(f"the stream had no answer: {received[:500]!r}")
    return delay
