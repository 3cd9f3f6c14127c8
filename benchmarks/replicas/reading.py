"""Reading a run's events, and what its agent stamped them with."""

import re
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass

from benchmarks.load import HOST, build_request

STAMP = re.compile(rb'event: message\.delta\ndata: [^\n]*"delta":"(\d+)@(\d+)"')
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Stamp:
    """`pid` is the agent's process; `made` and `arrived` are seconds of one clock."""

    pid: int
    made: float
    arrived: float


def read_stamps(port: int, thread_id: str, run_id: str, token: str) -> Generator[Stamp]:
    """From the run's first event until its end. Raises RuntimeError if the stream is cut off."""
    path = f"/threads/{thread_id}/runs/{run_id}/events"
    with socket.create_connection((HOST, port), timeout=PATIENCE) as connection:
        connection.sendall(build_request("GET", path, token=token))
        received, seen = b"", 0
        while not received.endswith(b"\r\n0\r\n\r\n"):
            chunk = connection.recv(65_536)
            arrived = time.monotonic()
            if not chunk:
                raise RuntimeError(f"the stream was cut off: {received[-300:]!r}")
            received += chunk
            for found in STAMP.finditer(received, seen):
                seen = found.end()
                yield Stamp(int(found[1]), int(found[2]) / 1e9, arrived)
