"""Wakes readers within one process."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agentflow_server.interfaces import EventBus, Subscription
from agentflow_server.models import Event

BUFFERED_EVENTS = 256
"""What a reader may fall behind before it loses events and has to read the store."""


class LocalSubscription(Subscription):
    """A bounded queue; when it overflows, the oldest events go."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=BUFFERED_EVENTS)
        self._arrived = asyncio.Event()

    def deliver(self, events: Sequence[Event]) -> None:
        self._events.extend(events)
        self._arrived.set()

    async def receive(self, max_wait: float) -> Sequence[Event]:
        if not self._events:
            try:
                async with asyncio.timeout(max_wait):
                    await self._arrived.wait()
            except TimeoutError:
                return ()
        self._arrived.clear()
        events = tuple(self._events)
        self._events.clear()
        return events


class LocalEventBus(EventBus):
    """One dictionary; publisher and readers share the event loop."""

    def __init__(self) -> None:
        self._readers: defaultdict[str, list[LocalSubscription]] = defaultdict(list)

    def publish(self, events: Sequence[Event]) -> None:
        if not events:
            return
        for reader in self._readers.get(events[0].run_id, ()):
            reader.deliver(events)

    @asynccontextmanager
    async def subscribe(self, run_id: str) -> AsyncIterator[Subscription]:
        subscription = LocalSubscription()
        self._readers[run_id].append(subscription)
        try:
            yield subscription
        finally:
            self._readers[run_id].remove(subscription)
            if not self._readers[run_id]:
                del self._readers[run_id]
