"""Reading a run's events while they are written, and waiting for its end."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from agentflow_server.errors import NotFound, RunFailed, ServerStopping, StoreUnavailable
from agentflow_server.interfaces import EventBus, Store, Subscription
from agentflow_server.metrics import Metrics
from agentflow_server.models import (
    TERMINAL_EVENTS,
    Event,
    JsonObject,
    Message,
    Run,
    RunError,
    RunStatus,
)

T = TypeVar("T")

PAUSES = TERMINAL_EVENTS | {"interrupt"}
"""Events after which nobody need wait: what follows an interrupt follows somebody's answer."""
BEGINNINGS = frozenset({"run.started", "run.resumed"})

HEARTBEAT_SECONDS = 15.0
EVENTS_PER_READ = 64
AWAY_SECONDS = 60.0
"""How long the store may be away until whoever follows or waits is sent away."""
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that did not fail: `messages` is what the agent said, as JSON objects, in order;
    `interrupts` are the questions of one that is `interrupted`."""

    thread_id: str
    run_id: str
    messages: list[JsonObject]
    status: RunStatus = "success"
    interrupts: Sequence[JsonObject] = ()


class Reader:
    """Hears of events from the bus; what the bus has lost, the store has."""

    def __init__(self, store: Store, bus: EventBus, metrics: Metrics) -> None:
        self._metrics = metrics
        self._store = store
        self._bus = bus

    async def follow(self, owner: str, run: Run, after: int) -> AsyncGenerator[Event | None, None]:
        """The run's events with `seq > after`, without gap or repeat, until it ends or waits for
        an answer.

        None is a sign of life when nothing happened for HEARTBEAT_SECONDS. It also ends when the
        server stops: whoever follows comes back with the number of the event he saw last.
        """
        try:
            async for event in self._follow(owner, run, after):
                yield event
        except ServerStopping:
            return

    async def wait(self, run: Run, subscription: Subscription, after: int) -> Turn:
        """The turn when it has ended, from what was said after event `after`.

        Raises RunFailed, ServerStopping.
        """
        messages: list[JsonObject] = []
        is_behind = False
        while True:
            events: Sequence[Event] = ()
            if not is_behind:
                events = await subscription.receive(HEARTBEAT_SECONDS)
            is_behind = is_behind or not events or events[0].seq != after + 1
            if is_behind:
                events = await _patiently(partial(self._read, run.run_id, after), subscription)
                is_behind = len(events) == EVENTS_PER_READ
            for event in events:
                after = event.seq
                if event.type in BEGINNINGS:
                    messages.clear()  # what a dead server's agent had said is not kept
                elif event.type == "message.completed":
                    messages.append(event.data)
                elif event.type == "run.cancelled":
                    kept = await _patiently(partial(self._find_kept, run), subscription)
                    return _turn(run, event, [m for m in messages if m["message_id"] in kept])
                elif event.type in PAUSES:
                    return _turn(run, event, messages)

    async def _find_kept(self, run: Run) -> Collection[str]:
        """Not all that a run has said, if it was rolled back, or its server died."""
        return {message.message_id for message in await self._store.run_messages(run.run_id)}

    async def replay(self, run: Run) -> Turn:
        """The turn of a run that has ended. Raises RunFailed."""
        if run.error is not None:
            raise _failure(run, run.error)
        messages = await self._store.run_messages(run.run_id)
        said = [_json(message) for message in messages[1:]]
        interrupts = [interrupt.model_dump() for interrupt in run.interrupts]
        return Turn(run.thread_id, run.run_id, said, run.status, interrupts)

    async def _follow(self, owner: str, run: Run, after: int) -> AsyncGenerator[Event | None, None]:
        may_be_over = run.ended_at is not None
        heard_at = time.monotonic()
        async with self._bus.subscribe(run.run_id) as subscription:
            stored = await self._read(run.run_id, after)
            while True:
                for event in stored:
                    after, heard_at = event.seq, time.monotonic()
                    may_be_over = event.type in PAUSES
                    yield event
                is_over = partial(self._is_over, owner, run, after)
                if may_be_over and await _patiently(is_over, subscription):
                    return
                may_be_over = False
                if len(stored) < EVENTS_PER_READ:
                    async for event in self._hear(subscription, after):
                        after, heard_at = event.seq, time.monotonic()
                        yield event
                        if event.type in PAUSES:
                            return
                    if time.monotonic() - heard_at >= HEARTBEAT_SECONDS:
                        may_be_over, heard_at = True, time.monotonic()
                        yield None
                stored = await _patiently(partial(self._read, run.run_id, after), subscription)

    async def _hear(self, subscription: Subscription, after: int) -> AsyncGenerator[Event, None]:
        """What the bus hands on; until it has lost something, or knows nothing: then the store is
        to be asked."""
        while events := await subscription.receive(HEARTBEAT_SECONDS):
            fresh = [event for event in events if event.seq > after]
            if fresh and fresh[0].seq != after + 1:
                return
            self._note_lag(fresh)
            for event in fresh:
                after = event.seq
                yield event

    def _note_lag(self, events: Sequence[Event]) -> None:
        if not self._metrics.is_on:
            return
        now = time.time()
        for event in events:
            if event.made_at is not None:
                self._metrics.event_delivered(max(0.0, now - event.made_at))

    async def _read(self, run_id: str, after: int) -> Sequence[Event]:
        return await self._store.list_events(run_id, after=after, limit=EVENTS_PER_READ)

    async def _is_over(self, owner: str, run: Run, after: int) -> bool:
        """Nothing more will be stored for now: the run has ended, or its thread is deleted."""
        try:
            now = await self._store.get_run(owner, run.thread_id, run.run_id)
        except NotFound:
            return True
        return now.ended_at is not None and not await self._read(run.run_id, after)


async def _patiently(ask: Callable[[], Awaitable[T]], subscription: Subscription) -> T:
    """The store's answer, also when the store has to come back first: the run goes on meanwhile.

    Raises StoreUnavailable, ServerStopping.
    """
    patience = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            if time.monotonic() >= patience:
                raise
        # What it hands out is in the store as well.
        await subscription.receive(PAUSE_SECONDS)


def _turn(run: Run, ended: Event, messages: list[JsonObject]) -> Turn:
    data = ended.data
    if "error" in data:
        raise _failure(run, RunError(**data["error"]))
    interrupts = data.get("interrupts", ())
    return Turn(run.thread_id, run.run_id, messages, data["status"], interrupts)


def _failure(run: Run, error: RunError) -> RunFailed:
    return RunFailed(
        error.detail, code=error.code, details={"thread_id": run.thread_id, "run_id": run.run_id}
    )


def _json(message: Message) -> JsonObject:
    return message.model_dump(mode="json")
