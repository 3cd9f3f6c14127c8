"""The load generator: a closed loop of keep-alive connections, light enough not to be the limit.

One thread, raw sockets and a selector: about 30 µs a request, so that one core of it can saturate
one core of a server.
"""

import json
import re
import selectors
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

HOST = "127.0.0.1"
TIMEOUT = 30.0
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_FIRST_DELTA = re.compile(rb'event: message\.delta\ndata: [^\n]*"delta":"(\d+)"')


@dataclass(slots=True)
class Outcome:
    """What one run of the loop saw; latencies in seconds, in the order the answers came."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


def build_request(
    method: str, path: str, body: dict[str, Any] | None = None, token: str | None = None
) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def run_clients(
    ports: int | Sequence[int],
    plans: Sequence[Sequence[bytes]],
    seconds: float,
    *,
    expected: Collection[int] = (200,),
) -> Outcome:
    """Each plan is a client of its own: it sends its next request when it has the last answer.
    Several ports take clients in turn.

    No new request is sent after `seconds`. Raises RuntimeError for an answer with another status
    than the `expected` ones.
    """
    outcome = Outcome()
    with selectors.DefaultSelector() as selector:
        servers = cycle([ports] if isinstance(ports, int) else ports)
        clients = [_Client(next(servers), iter(plan), expected) for plan in plans]
        try:
            for client in clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            begun = time.perf_counter()
            deadline = begun + seconds
            active = sum(client.send_next() for client in clients)
            while active:
                ready = selector.select(TIMEOUT)
                if not ready:
                    raise RuntimeError(f"no answer within {TIMEOUT:.0f} s")
                for key, _ in ready:
                    client = key.data
                    body = client.receive()
                    if body is None:
                        continue
                    now = time.perf_counter()
                    outcome.latencies.append(now - client.sent)
                    outcome.bodies.append(body)
                    active -= now > deadline or not client.send_next()
            outcome.seconds = time.perf_counter() - begun
        finally:
            for client in clients:
                client.socket.close()
    return outcome


class _Client:
    """One connection, with one request on its way."""

    def __init__(self, port: int, requests: Iterator[bytes], expected: Collection[int]) -> None:
        self.socket = _connect(port)
        self.sent = 0.0
        self._requests = requests
        self._expected = tuple(b"HTTP/1.1 %d " % status for status in expected)
        self._received = b""

    def send_next(self) -> bool:
        """False when there is nothing left to send."""
        request = next(self._requests, None)
        if request is None:
            return False
        self.sent = time.perf_counter()
        self.socket.sendall(request)
        return True

    def receive(self) -> bytes | None:
        """The body of the answer once it is complete."""
        chunk = self.socket.recv(65_536)
        if not chunk:
            raise RuntimeError("the server closed the connection")
        self._received += chunk
        head, complete, body = self._received.partition(b"\r\n\r\n")
        if not complete or not _is_whole(head, body):
            return None
        self._received = b""
        if not head.startswith(self._expected):
            raise RuntimeError(f"unexpected answer: {head.splitlines()[0]!r} {body[:300]!r}")
        return body


def _is_whole(head: bytes, body: bytes) -> bool:
    """A body in chunks is left as it came: those who ask for it look for words in it."""
    length = _LENGTH.search(head)
    return body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])


def time_first_delta(port: int, requests: Sequence[bytes]) -> list[float]:
    """Seconds from the moment an agent made its first delta, which says so, to its arrival."""
    delays: list[float] = []
    with _connect(port) as connection:
        for request in requests:
            connection.sendall(request)
            received = b""
            delta = None
            while not received.endswith(b"0\r\n\r\n"):
                chunk = connection.recv(65_536)
                arrived = time.monotonic_ns()
                if not chunk:
                    raise RuntimeError(f"the stream was cut off: {received[-300:]!r}")
                received += chunk
                if delta is None and (delta := _FIRST_DELTA.search(received)):
                    delays.append((arrived - int(delta[1])) / 1e9)
            if delta is None:
                raise RuntimeError(f"there was no delta: {received[:300]!r}")
    return delays


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), timeout=TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
