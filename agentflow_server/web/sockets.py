"""The WebSockets that are open: how many of each caller, and an end for all when the server stops."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agentflow_server.errors import AgentflowError, ServerStopping, TooManyRequests

RETRY_AFTER = 10


@dataclass(frozen=True, slots=True)
class SocketRules:
    """Times are in seconds."""

    origins: frozenset[str] = frozenset()
    public_url: str | None = None
    per_caller: int = 32
    idle: float = 300.0
    max_bytes: int = 1_000_000
    json_depth: int = 32
    authenticate_within: float = 10.0
    max_auth_bytes: int = 32_768
    unauthenticated: int = 100
    """How many sockets of one address may wait for their `auth` frame at a time."""
    recheck_every: float = 15.0
    """A list of revocations is at most half a minute old: this makes less than one in all."""
    send_within: float = 30.0
    followed_runs: int = 16


class Sockets:
    """Each open socket has a place and a future; a result in the future ends the socket."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._ends: set[asyncio.Future[AgentflowError]] = set()
        self._is_closed = False

    @contextmanager
    def place(self, who: str, limit: int) -> Iterator[asyncio.Future[AgentflowError]]:
        """Raises TooManyRequests when `who` has `limit` places, and ServerStopping."""
        if self._is_closed:
            raise ServerStopping
        if self._counts[who] >= limit:
            raise TooManyRequests(retry_after=RETRY_AFTER)
        end: asyncio.Future[AgentflowError] = asyncio.get_running_loop().create_future()
        self._counts[who] += 1
        self._ends.add(end)
        try:
            yield end
        finally:
            self._ends.remove(end)
            self._counts[who] -= 1
            if not self._counts[who]:
                del self._counts[who]

    def close(self) -> None:
        """End all of them, and those that come later."""
        self._is_closed = True
        for end in self._ends:
            if not end.done():
                end.set_result(ServerStopping())
