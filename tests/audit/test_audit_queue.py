"""R85: what requests notice of a log that cannot be written is nothing."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentflow_server.audit import queue
from agentflow_server.audit.queue import NullAuditLog, QueuedAuditLog
from agentflow_server.models import AuditEvent

Event = Callable[..., AuditEvent]


class Memory:
    """A sink that fails or hangs when it is told to."""

    def __init__(self) -> None:
        self.batches: list[Sequence[AuditEvent]] = []
        self.failing = False
        self.attempted = asyncio.Event()
        self.wrote = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    async def open(self) -> None: ...

    async def append(self, events: Sequence[AuditEvent]) -> None:
        self.attempted.set()
        await self.free.wait()
        if self.failing:
            raise OSError(28, "No space left on device")
        self.batches.append(list(events))
        self.wrote.set()

    @property
    def events(self) -> list[AuditEvent]:
        return [event for batch in self.batches for event in batch]


@pytest.fixture
def sink() -> Memory:
    return Memory()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_RETRY", 0.001)


async def test_what_was_recorded_is_written_in_order(sink: Memory, event: Event) -> None:
    log = QueuedAuditLog(sink)
    await log.open()
    for number in range(1000):
        log.record(event(user_id=str(number)))
    await log.close()
    assert [one.user_id for one in sink.events] == [str(number) for number in range(1000)]
    assert max(map(len, sink.batches)) <= 200


async def test_an_event_is_written_without_waiting_for_the_end(
    sink: Memory, event: Event, within: Any
) -> None:
    log = QueuedAuditLog(sink)
    await log.open()
    log.record(event())
    async with within():
        await sink.wrote.wait()
    await log.close()
    assert len(sink.events) == 1


async def test_it_may_be_opened_again(sink: Memory, event: Event) -> None:
    log = QueuedAuditLog(sink)
    for _ in range(2):
        await log.open()
        log.record(event())
        await log.close()
    assert len(sink.events) == 2


async def test_what_was_recorded_before_it_was_opened_is_kept(
    sink: Memory, event: Event, within: Any
) -> None:
    log = QueuedAuditLog(sink)
    log.record(event())
    await log.close()
    await log.open()
    async with within():
        await sink.wrote.wait()
    await log.close()
    assert len(sink.events) == 1


async def test_r85_events_wait_while_the_sink_fails(
    sink: Memory, event: Event, within: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sink.failing = True
    log = QueuedAuditLog(sink)
    await log.open()
    log.record(event(user_id="alice"))
    async with within():
        for _ in range(5):
            await sink.attempted.wait()
            sink.attempted.clear()
        sink.failing = False
        await sink.wrote.wait()
    await log.close()
    assert [one.user_id for one in sink.events] == ["alice"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "No space left" in caplog.text
    assert "alice" not in caplog.text


async def test_a_failure_is_logged_once_a_minute(
    sink: Memory, event: Event, within: Any, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    sink.failing = True
    log = QueuedAuditLog(sink, clock=lambda: now[0])
    await log.open()
    log.record(event())
    async with within():
        for _ in range(13):
            await sink.attempted.wait()
            sink.attempted.clear()
            now[0] += 10
        sink.failing = False
        await sink.wrote.wait()
    await log.close()
    assert 2 <= len(caplog.records) <= 3


async def test_r85_events_that_found_no_place_are_counted_in_the_log_itself(
    sink: Memory, event: Event, within: Any
) -> None:
    sink.free.clear()
    log = QueuedAuditLog(sink, max_queued=3)
    await log.open()
    for number in range(10):
        log.record(event(user_id=str(number)))
    sink.free.set()
    async with within():
        await sink.wrote.wait()
    log.record(event(user_id="later"))
    await log.close()
    assert [one.user_id or one.action for one in sink.events] == [
        *("0", "1", "2"),
        "audit.gap",
        "later",
    ]
    assert sink.events[3].details == {"events": "7"}
    assert sink.events[3].result == "error"


async def test_closing_says_what_is_lost(
    sink: Memory, event: Event, caplog: pytest.LogCaptureFixture
) -> None:
    sink.failing = True
    log = QueuedAuditLog(sink, max_queued=3)
    await log.open()
    for _ in range(5):
        log.record(event())
    await log.close()
    assert "5 events are lost" in caplog.text


async def test_closing_does_not_wait_for_a_sink_that_hangs(
    sink: Memory, event: Event, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr(queue, "_CLOSE_WITHIN", 0.01)
    sink.free.clear()
    log = QueuedAuditLog(sink)
    await log.open()
    log.record(event())
    await log.close()
    assert "1 events are lost" in caplog.text


async def test_no_log_takes_everything(event: Event) -> None:
    log = NullAuditLog()
    await log.open()
    log.record(event())
    await log.close()
    assert vars(log) == {}
