"""Turns what an agent yields into stored messages and events."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json
from uuid_utils import uuid7

from agentflow_server.errors import LeaseLost, StoreUnavailable
from agentflow_server.interfaces import (
    AgentEvent,
    CustomEvent,
    EventBus,
    MessageCompleted,
    Store,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from agentflow_server.models import (
    ActiveRun,
    Event,
    EventType,
    JsonObject,
    Message,
    NewMessage,
    Run,
    RunOutcome,
    RunStatus,
)
from agentflow_server.runs.clock import now

SILENCE_SECONDS = 0.2
"""After which readers hear that a run has started, although its agent has said nothing yet."""

BATCH_SECONDS = 0.02
BATCH_EVENTS = 16
PATIENCE_SECONDS = 60.0
MAX_DELAY_SECONDS = 2.0

_LAST_EVENTS: Mapping[RunStatus, EventType] = {
    "success": "run.completed",
    "interrupted": "interrupt",
    "cancelled": "run.cancelled",
}


class Recorder:
    """The event log of one run while it is written.

    Events are numbered at once and stored in batches: a text delta after a pause goes out
    immediately, everything else waits for at most BATCH_SECONDS or BATCH_EVENTS. Readers are told
    only what is stored.
    """

    def __init__(self, store: Store, bus: EventBus, active: ActiveRun) -> None:
        self._store = store
        self._bus = bus
        self._active = active
        self._seq = active.last_seq
        self._waiting: list[Event] = []
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Task[None] | None = None
        self._last_flush = 0.0
        self._message_id: str | None = None
        self._text: list[str] = []
        self._messages: list[Message] = []
        self._closed = False

    def start(self) -> None:
        kind: EventType = "run.resumed" if self._active.answers else "run.started"
        self._add(kind, _json(self._active.run))
        self._flush_in(SILENCE_SECONDS)

    async def record(self, event: AgentEvent) -> None:
        """Raises LeaseLost or StoreUnavailable if what came before could not be stored."""
        if self._closed:
            raise LeaseLost("The run has ended without its agent")
        match event:
            case TextDelta(text):
                self._text.append(text)
                self._add("message.delta", {"message_id": self._current_message(), "delta": text})
            case MessageCompleted(message):
                self._complete(message)
            case ToolStarted(name, call_id, arguments):
                self._add(
                    "tool.started",
                    {"name": name, "call_id": call_id, "arguments": _safe(arguments)},
                )
            case ToolCompleted(name, call_id, result):
                self._add(
                    "tool.completed", {"name": name, "call_id": call_id, "result": _safe(result)}
                )
            case CustomEvent(data):
                self._add("custom", {"data": _safe(data)})
        await self._schedule(urgent=isinstance(event, TextDelta))

    async def finish(
        self, outcome: RunOutcome, *, keep: bool, claim_next: bool
    ) -> ActiveRun | None:
        """Store the rest and the end in one transaction. May be called again if it raised.

        With `keep` the thread keeps what was said, also half a message.
        """
        self._closed = True
        if keep and self._text:
            text = "".join(self._text)
            self._complete(NewMessage("assistant", text, {"partial": True}))
        self._stop_timer()
        while self._flush is not None:
            await self._flushed()
            self._stop_timer()
        ended = self._ended(outcome)
        messages = self._messages if keep else []
        following = await self._store.finish_run(
            self._active, outcome, messages, [*self._waiting, ended], claim_next=claim_next
        )
        self._bus.publish([*self._waiting, ended])
        self._waiting.clear()
        return following

    def discard(self) -> None:
        """Forget what is not stored yet: it is what keeps the end from being stored."""
        self._seq -= len(self._waiting)
        self._waiting.clear()
        self._messages.clear()

    def _ended(self, outcome: RunOutcome) -> Event:
        run = self._active.run
        data: JsonObject = {
            "thread_id": run.thread_id,
            "run_id": run.run_id,
            "status": outcome.status,
        }
        if outcome.error is not None:
            data["error"] = outcome.error.model_dump()
        if outcome.interrupts:
            data["interrupts"] = [interrupt.model_dump() for interrupt in outcome.interrupts]
        kind = _LAST_EVENTS.get(outcome.status, "run.failed")
        return Event(run.run_id, self._seq + 1, kind, data, time.time())

    def _current_message(self) -> str:
        if self._message_id is None:
            self._message_id = str(uuid7())
        return self._message_id

    def _complete(self, new: NewMessage) -> None:
        run = self._active.run
        message_id = self._current_message() if new.role == "assistant" else str(uuid7())
        if new.role == "assistant":
            self._message_id = None
            self._text.clear()
        message = Message(
            message_id=message_id,
            thread_id=run.thread_id,
            run_id=run.run_id,
            role=new.role,
            content=new.content,
            created_at=now(),
            metadata=new.metadata,
        )
        self._messages.append(message)
        self._add("message.completed", _json(message))

    def _add(self, kind: EventType, data: JsonObject) -> None:
        self._seq += 1
        event = Event(self._active.run.run_id, self._seq, kind, data, time.time())
        self._waiting.append(event)

    async def _schedule(self, *, urgent: bool) -> None:
        full = len(self._waiting) >= BATCH_EVENTS
        if self._flush is not None:
            if not (full or self._flush.done()):
                return  # the running flush looks for more when it ends
            await self._flushed()
        loop = asyncio.get_running_loop()
        if full or (urgent and loop.time() - self._last_flush > BATCH_SECONDS):
            self._start_flush()
        else:
            self._flush_in(BATCH_SECONDS)

    def _flush_in(self, seconds: float) -> None:
        """At the latest."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._timer is None or self._timer.when() > due:
            self._stop_timer()
            self._timer = loop.call_at(due, self._start_flush)

    def _start_flush(self) -> None:
        self._stop_timer()
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._write())

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        self._last_flush = loop.time()
        batch = tuple(self._waiting)
        await self._append(batch)
        del self._waiting[: len(batch)]
        self._bus.publish(batch)
        if self._waiting:
            self._flush_in(BATCH_SECONDS)

    async def _append(self, batch: Sequence[Event]) -> None:
        """Patiently: an agent that has worked for minutes shall not end because the database was
        away for seconds. What is stored already is not stored twice.

        Raises LeaseLost, and StoreUnavailable after PATIENCE_SECONDS or when the run has ended.
        """
        clock = asyncio.get_running_loop().time
        end, delay = clock() + PATIENCE_SECONDS, 0.1
        while True:
            try:
                await self._store.append_events(self._active, batch)
                return
            except StoreUnavailable:
                if self._closed or clock() + delay > end:
                    raise
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_DELAY_SECONDS)

    async def _flushed(self) -> None:
        """Wait for the running flush and raise what it raised. A cancelled caller does not cancel
        it: what is stored twice would be refused."""
        flush = self._flush
        if flush is None:
            return
        try:
            await asyncio.shield(flush)
        finally:
            # A timer may have started the next one meanwhile: that one is not ours to forget.
            if flush.done() and self._flush is flush:
                self._flush = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _json(value: Run | Message) -> JsonObject:
    return value.model_dump(mode="json")


def _safe(value: Any) -> Any:
    """Tools return anything; what JSON cannot say is sent as its type's name.

    Raises ValueError for text that cannot be encoded.
    """
    text = to_json(value, inf_nan_mode="null", fallback=lambda other: f"<{type(other).__name__}>")
    return from_json(text)
