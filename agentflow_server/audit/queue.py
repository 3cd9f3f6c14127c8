"""The audit log as requests see it: a bounded queue, written in the background."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from agentflow_server.interfaces import AuditLog
from agentflow_server.models import AuditEvent

log = logging.getLogger(__name__)

MAX_QUEUED = 10_000
_BATCH = 200
_GATHER = 0.05
"""Seconds an event may wait for others, so that they share one wait for the disk."""
_RETRY = 1.0
_LOG_EVERY = 60.0
_CLOSE_WITHIN = 5.0


class Sink(Protocol):
    """Where sealed lines go."""

    async def open(self) -> None:
        """Raises ConfigError when nothing can be written there."""

    async def append(self, events: Sequence[AuditEvent]) -> None:
        """Seal the events and write them in order, all or none; durable when this returns.

        Raises OSError or StoreUnavailable.
        """


class NullAuditLog(AuditLog):
    """Takes note of nothing."""

    def record(self, event: AuditEvent) -> None: ...


class QueuedAuditLog(AuditLog):
    """Requests never wait for the sink and never fail because of it.

    While the sink fails, events wait; when the queue is full the newest are dropped. How many is
    written down as an event of its own (`audit.gap`) when the sink works again.
    """

    def __init__(
        self, sink: Sink, *, max_queued: int = MAX_QUEUED, clock: Callable[[], float] = time.time
    ) -> None:
        self._sink = sink
        self._max_queued = max_queued
        self._clock = clock
        self._queue: deque[AuditEvent] = deque()
        self._dropped = 0
        self._log_from = 0.0
        self._news = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def record(self, event: AuditEvent) -> None:
        """Only on the server's event loop."""
        if len(self._queue) >= self._max_queued:
            self._dropped += 1
            return
        self._queue.append(event)
        self._news.set()

    async def open(self) -> None:
        """Raises ConfigError."""
        await self._sink.open()
        self._news, self._closing = asyncio.Event(), asyncio.Event()
        if self._queue:
            self._news.set()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        self._closing.set()
        self._news.set()
        _, late = await asyncio.wait([task], timeout=_CLOSE_WITHIN)
        if late:
            task.cancel()
            await asyncio.wait([task])
        if lost := len(self._queue) + self._dropped:
            log.error("the audit log could not be written: %d events are lost", lost)
            self._queue.clear()
            self._dropped = 0

    async def _run(self) -> None:
        while not self._closing.is_set():
            await self._news.wait()
            self._news.clear()
            await self._pause(_GATHER)
            await self._flush()
        await self._flush()

    async def _flush(self) -> None:
        while self._queue:
            if await self._append(list(islice(self._queue, _BATCH))):
                continue
            if self._closing.is_set():
                return
            await self._pause(_RETRY)

    async def _append(self, batch: Sequence[AuditEvent]) -> bool:
        try:
            await self._sink.append(batch)
        except Exception:
            # The top of a background task: whatever is wrong with the sink, requests go on.
            if self._clock() >= self._log_from:
                self._log_from = self._clock() + _LOG_EVERY
                log.exception("the audit log cannot be written: %d events wait", len(self._queue))
            return False
        for _ in batch:
            self._queue.popleft()
        self._note_gap()
        return True

    def _note_gap(self) -> None:
        if not self._dropped:
            return
        # There is room again for the first time: this is where the dropped ones would stand.
        details = {"events": str(self._dropped)}
        self._dropped = 0
        self._queue.append(
            AuditEvent(self._clock(), "audit.gap", "error", reason="queue_full", details=details)
        )

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
