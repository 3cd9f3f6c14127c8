"""The in-process event bus."""

import asyncio

from agentflow_server.events.local import BUFFERED_CHARACTERS, BUFFERED_EVENTS, LocalEventBus
from agentflow_server.models import Event


def event(seq, run_id="r"):
    return Event(run_id, seq, "custom", {})


async def test_a_reader_gets_what_is_published_after_he_came_and_only_of_his_run():
    bus = LocalEventBus()
    bus.publish([event(1)])
    async with bus.subscribe("r") as mine, bus.subscribe("other") as other:
        bus.publish([event(2), event(3)])
        assert [e.seq for e in await mine.receive(1)] == [2, 3]
        assert await other.receive(0.01) == ()


async def test_a_waiting_reader_is_woken():
    bus = LocalEventBus()
    async with bus.subscribe("r") as subscription:
        waiting = asyncio.create_task(subscription.receive(5))
        await asyncio.sleep(0)
        bus.publish([event(1)])
        assert [e.seq for e in await waiting] == [1]


async def test_a_slow_reader_loses_the_oldest_events_and_can_see_that():
    bus = LocalEventBus()
    async with bus.subscribe("r") as subscription:
        for seq in range(1, BUFFERED_EVENTS + 11):
            bus.publish([event(seq)])
        received = await subscription.receive(1)
        assert 0 < len(received) <= BUFFERED_EVENTS
        assert received[0].seq > 1
        assert received[-1].seq == BUFFERED_EVENTS + 10


async def test_a_slow_reader_of_large_events_holds_little_memory():
    bus = LocalEventBus()
    large = "x" * (BUFFERED_CHARACTERS // 2)
    async with bus.subscribe("r") as subscription:
        for seq in range(1, 40):
            bus.publish([Event("r", seq, "custom", {"data": large if seq % 2 else [large]})])
        received = await subscription.receive(1)
        assert len(received) <= 2
        assert received[-1].seq == 39


async def test_nothing_is_left_when_the_last_reader_goes():
    bus = LocalEventBus()
    async with bus.subscribe("r"), bus.subscribe("r"):
        pass
    bus.publish([event(1)])
    bus.publish([])
    assert not bus._readers
