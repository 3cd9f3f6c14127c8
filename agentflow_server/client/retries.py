"""Whether a request is sent again, and when."""

import random
import time

from agentflow_server.client.errors import (
    AgentflowClientError,
    RateLimited,
    ServerFailed,
    ServerUnreachable,
    TimedOut,
)

LONGEST_PAUSE = 60.0
"""Seconds; a server that wants to be left alone for longer is not asked again."""


def backoff(number: int, *, cap: float = 8.0) -> float:
    """Seconds to wait after the failure of this number (the first is 1), doubling up to `cap`."""
    return min(cap, 0.25 * 2.0 ** min(number - 1, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 – spreads the load


def find_passing_pause(error: AgentflowClientError, number: int) -> float | None:
    """Seconds until it is worth another try; None for what will not pass by waiting."""
    match error:
        case ServerUnreachable() | RateLimited():
            pass
        case ServerFailed(status=502 | 503 | 504):
            pass
        case _:
            return None
    seconds = max(backoff(number), error.retry_after or 0.0)
    return seconds if seconds <= LONGEST_PAUSE else None


class Attempts:
    """The attempts at one request; `number` counts them. `has_renewed` says that a refused token
    was replaced: that is done once."""

    def __init__(self, retries: int, patience: float) -> None:
        """No attempt begins after `patience` seconds."""
        self.number = 1
        self.has_renewed = False
        self._retries = retries
        self._until = time.monotonic() + patience

    def find_pause(self, error: AgentflowClientError) -> float | None:
        """Seconds until the next attempt; None when this was the last. Raises TimedOut."""
        is_under_way = self.number > 1 and error.code == "request_in_progress"
        is_without_answer = is_under_way or isinstance(error, ServerUnreachable)
        if is_without_answer and time.monotonic() >= self._until:
            raise TimedOut("there was no answer in the time that was given") from error
        if is_under_way:
            # It was ours that arrived and whose answer was lost: it will come.
            seconds: float | None = backoff(4)
        elif self.number <= self._retries:
            seconds = find_passing_pause(error, self.number)
        else:
            seconds = None
        self.number += seconds is not None
        return seconds
