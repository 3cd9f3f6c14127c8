"""Wakes readers within one process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pydantic_core import to_json

from agentflow_server.errors import ServerStopping
from agentflow_server.interfaces import EventBus, Subscription
from agentflow_server.models import Event

BUFFERED_EVENTS = 256
BUFFERED_CHARACTERS = 1_000_000
"""How far a reader may fall behind before it loses events and has to read the store."""


class LocalSubscription(Subscription):
    """A bounded queue; when it overflows, everything in it goes: the store has it.

    With `poll`, a reader of a run that nobody in this process writes waits for so many seconds at
    most: what wakes it may get lost on the way.
    """

    def __init__(self, poll: float | None = None) -> None:
        self._events: list[Event] = []
        self._characters = 0
        self._arrived = asyncio.Event()
        self._closed = False
        self._poll = poll
        self._is_near = False
        self._is_woken = False

    def close(self) -> None:
        self._closed = True
        self._arrived.set()

    def wake(self) -> None:
        """There is something in the store that was written elsewhere."""
        self._is_near = False
        self._is_woken = True
        self._arrived.set()

    def deliver(self, events: Sequence[Event], characters: int) -> None:
        crowded = (
            len(self._events) + len(events) > BUFFERED_EVENTS
            or self._characters + characters > BUFFERED_CHARACTERS
        )
        if crowded:
            self._events, self._characters = [], 0
        self._events.extend(events)
        self._characters += characters
        self._is_near = True
        self._arrived.set()

    async def receive(self, max_wait: float) -> Sequence[Event]:
        if not (self._events or self._is_woken or self._closed):
            if self._poll is not None and not self._is_near:
                max_wait = min(max_wait, self._poll)
            try:
                async with asyncio.timeout(max_wait):
                    await self._arrived.wait()
            except TimeoutError:
                return ()
        self._arrived.clear()
        if self._events:
            events, self._events, self._characters = self._events, [], 0
            return events
        if self._closed:
            raise ServerStopping
        self._is_woken = False
        return ()


class LocalEventBus(EventBus):
    """One dictionary; publisher and readers share the event loop."""

    def __init__(self, *, poll: float | None = None) -> None:
        """`poll`: see LocalSubscription."""
        self._readers: defaultdict[str, list[LocalSubscription]] = defaultdict(list)
        self._closed = False
        self._poll = poll
        self.deserted = asyncio.Event()
        """Set as long as nobody subscribes."""
        self.deserted.set()

    def publish(self, events: Sequence[Event]) -> None:
        if not events:
            return
        readers = self._readers.get(events[0].run_id)
        if not readers:
            return
        characters = sum(_characters(event) for event in events)
        for reader in readers:
            reader.deliver(events, characters)

    def wake(self, run_id: str) -> None:
        """Let the readers of the run look into the store."""
        for reader in self._readers.get(run_id, ()):
            reader.wake()

    def wake_all(self) -> None:
        for run_id in self._readers:
            self.wake(run_id)

    def close(self) -> None:
        self._closed = True
        for readers in self._readers.values():
            for reader in readers:
                reader.close()

    @asynccontextmanager
    async def subscribe(self, run_id: str) -> AsyncIterator[Subscription]:
        subscription = LocalSubscription(self._poll)
        if self._closed:
            subscription.close()
        self._readers[run_id].append(subscription)
        self.deserted.clear()
        try:
            yield subscription
        finally:
            self._readers[run_id].remove(subscription)
            if not self._readers[run_id]:
                del self._readers[run_id]
            if not self._readers:
                self.deserted.set()


def _characters(event: Event) -> int:
    """About how much memory an event holds."""
    values = event.data.values()
    if any(isinstance(value, dict | list) and value for value in values):
        return len(to_json(event.data))
    return sum(len(value) for value in values if isinstance(value, str))
