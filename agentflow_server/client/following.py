"""A run's events, each of them once, over as many connections as that takes."""

import time
from collections.abc import Generator
from typing import Any

import httpx2

from agentflow_server.client.errors import (
    AgentflowClientError,
    RateLimited,
    ServerFailed,
    ServerUnreachable,
    TimedOut,
    UnexpectedAnswer,
)
from agentflow_server.client.exchange import Call, Exchange, expect_content, parse, path_of
from agentflow_server.client.retries import find_passing_pause
from agentflow_server.client.sse import EventParser, RawEvent
from agentflow_server.client.steps import Emit, Items, Step, Steps, pause, read
from agentflow_server.models import TERMINAL_EVENTS, Event, JsonObject

PAUSES = TERMINAL_EVENTS | {"interrupt"}
"""Events after which a stream ends."""

SILENCE_SECONDS = 45.0
"""Three signs of life that did not come: the connection is dead."""
_FIRST_SIGN_SECONDS = 5.0
"""The server's first sign of life comes after 15 seconds; one that comes at once proves nothing."""


class Follower:
    """Hears a run's events; whatever happens to a connection, the next one goes on from there."""

    def __init__(
        self,
        exchange: Exchange,
        thread_id: str,
        run_id: str,
        *,
        after: int | None,
        patience: float,
        timeout: float | None = None,
    ) -> None:
        """`after` is the last event that is known, None if the first answer is to tell; `patience`:
        seconds without a sign of life until it gives up; `timeout`: seconds for all of it."""
        self._exchange = exchange
        self._path = path_of("threads", thread_id, "runs", run_id, "events")
        self._run_id = run_id
        self._after = after
        self._patience = patience
        self._until = None if timeout is None else time.monotonic() + timeout
        self._last_type = ""
        self._failures = 0
        self._alive_at = time.monotonic()

    def follow(self, first: Call | None = None) -> Items[Event]:
        """From the answer to `first`, if given. Raises AgentflowClientError."""
        failure = yield from self._listen(first or self._next_call())
        while failure is not None:
            yield from pause(self._find_pause(failure))
            failure = yield from self._listen(self._next_call())

    def _listen(
        self, call: Call
    ) -> Generator[Step | Emit[Event], Any, AgentflowClientError | None]:
        """One connection. Returns why there has to be another one, None if the stream has ended."""
        try:
            response = yield from self._exchange.ask(call, _open_stream)
            if not _has_ended(response):
                yield from self._hear()
        except httpx2.RequestError as error:
            return ServerUnreachable.after(error)
        except (ServerUnreachable, ServerFailed, RateLimited) as error:
            return error
        if _has_ended(response) or self._last_type in PAUSES:
            return None
        return ServerUnreachable("the connection ended before the run did")

    def _hear(self) -> Items[Event]:
        parser, connected_at = EventParser(), time.monotonic()
        while (chunk := (yield from read())) is not None:
            if time.monotonic() - connected_at > _FIRST_SIGN_SECONDS:
                self._note_life()
            for raw in parser.feed(chunk):
                event = self._read_event(raw)
                if self._after is not None and event.seq <= self._after:
                    continue
                if self._after is not None and event.seq != self._after + 1:
                    raise ServerUnreachable("events are missing from the stream")
                self._after, self._last_type = event.seq, event.type
                self._note_life()
                yield Emit(event)
            self._check_time()

    def _read_event(self, raw: RawEvent) -> Event:
        """Raises UnexpectedAnswer."""
        if not (raw.id.isascii() and raw.id.isdigit()):
            raise UnexpectedAnswer("an event has no number")
        data = parse(JsonObject, raw.data)
        # A newer server may know more types than this one.
        return Event(self._run_id, int(raw.id), raw.type, data)  # type: ignore[arg-type]

    def _next_call(self) -> Call:
        self._check_time()
        left = SILENCE_SECONDS if self._until is None else self._until - time.monotonic()
        return Call(
            "GET",
            self._path,
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(self._after or 0)},
            read_timeout=max(0.1, min(SILENCE_SECONDS, left)),
        )

    def _find_pause(self, failure: AgentflowClientError) -> float:
        """Seconds until the next connection. Raises `failure` when there is to be none."""
        self._check_time()
        self._failures += 1
        seconds = find_passing_pause(failure, self._failures)
        patience_left = self._alive_at + self._patience - time.monotonic()
        if self._after is None or seconds is None or seconds > patience_left:
            raise failure
        return seconds

    def _note_life(self) -> None:
        self._failures, self._alive_at = 0, time.monotonic()

    def _check_time(self) -> None:
        if self._until is not None and time.monotonic() >= self._until:
            raise TimedOut("the run has not ended in the time that was given; it goes on")


def _open_stream(response: httpx2.Response) -> Steps[httpx2.Response]:
    yield from ()
    if not _has_ended(response):
        expect_content(response, "text/event-stream")
    return response


def _has_ended(response: httpx2.Response) -> bool:
    """The server has nothing more to say about the run."""
    return response.status_code == 204
