"""Wakes readers in every process that uses the same PostgreSQL database."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from pydantic import TypeAdapter, ValidationError

from agentflow_server.events.local import LocalEventBus
from agentflow_server.events.notifications import Listener, Sender
from agentflow_server.interfaces import EventBus, Subscription
from agentflow_server.models import Event

log = logging.getLogger(__name__)

POLL_SECONDS = 1.5
"""How often readers of a run that is executed elsewhere look into the store unasked."""

_RUNS = "events"
_RUNS_AT_ONCE = 100
"""A payload has less than 8000 bytes, an id is a UUID."""
_MAX_WAITING = 10_000
"""While the database is gone. What is not told is found by looking."""

_Notice = TypeAdapter(tuple[str, str, list[str]])
"""Who says it, about what, and what."""


class PostgresEventBus(EventBus):
    """Readers beside the worker get the events themselves, those elsewhere are told to read them."""

    def __init__(self, url: str, *, poll: float = POLL_SECONDS) -> None:
        self._id = secrets.token_hex(4)
        self._local = LocalEventBus(poll=poll)
        self._runs: dict[str, None] = {}
        self._signals: dict[tuple[str, str], None] = {}
        self._heard_by: dict[str, Callable[[str], None]] = {}
        self._listener = Listener(url, self._hear, self._local.wake_all)
        self._sender = Sender(url, self._take)

    async def __aenter__(self) -> Self:
        """Returns when notifications are heard. Raises StoreUnavailable."""
        await self._listener.open()
        self._sender.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """What was published is still announced, unless the database is gone."""
        self.close()
        await self._sender.close()
        await self._listener.close()

    def publish(self, events: Sequence[Event]) -> None:
        if events:
            self._local.publish(events)
            if len(self._runs) < _MAX_WAITING:
                self._runs[events[0].run_id] = None
            self._sender.wake()

    def wake_all(self) -> None:
        self._local.wake_all()

    async def wait_for_readers(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._local.deserted.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        self._local.close()

    def subscribe(self, run_id: str) -> AbstractAsyncContextManager[Subscription]:
        return self._local.subscribe(run_id)

    # Signals

    def tell(self, topic: str, body: str = "") -> None:
        if len(self._signals) < _MAX_WAITING:
            self._signals[topic, body] = None
            self._sender.wake()

    def listen(self, topic: str, hear: Callable[[str], None]) -> None:
        self._heard_by[topic] = hear

    def _take(self) -> Sequence[str]:
        """What is to be sent, as payloads; it is forgotten here."""
        runs, self._runs = list(self._runs), {}
        signals, self._signals = self._signals, {}
        parts = [runs[at : at + _RUNS_AT_ONCE] for at in range(0, len(runs), _RUNS_AT_ONCE)]
        notices = [
            *((topic, [body]) for topic, body in signals),
            *((_RUNS, part) for part in parts),
        ]
        return [_Notice.dump_json((self._id, topic, bodies)).decode() for topic, bodies in notices]

    def _hear(self, payload: str) -> None:
        try:
            sender, topic, bodies = _Notice.validate_json(payload)
        except ValidationError:  # everybody who can connect can notify
            log.warning("a notification on our channel is none of ours")
            return
        if sender == self._id:
            return
        for body in bodies:
            if topic == _RUNS:
                self._local.wake(body)
            elif hear := self._heard_by.get(topic):
                hear(body)
