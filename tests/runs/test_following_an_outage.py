"""Whoever follows a run is kept waiting, not sent away, while the store is gone."""

import asyncio

import pytest

from agentflow_server.errors import StoreUnavailable
from agentflow_server.runs import following


class Outage:
    """The store cannot be read until it is over."""

    def __init__(self, store, monkeypatch):
        self._read = store.list_events
        self.is_over = False
        self.asked = asyncio.Event()
        monkeypatch.setattr(store, "list_events", self._answer)

    async def _answer(self, *args, **kwargs):
        self.asked.set()
        if not self.is_over:
            raise StoreUnavailable("connection refused")
        return await self._read(*args, **kwargs)


@pytest.fixture(params=[60.0])
async def reading(request, open_house, request_for, alice, monkeypatch):
    """A run that goes on, a reader with so much patience, and an outage that he has noticed."""
    go = asyncio.Event()

    async def agent(messages, config):
        yield "one "
        await go.wait()
        yield "two"

    monkeypatch.setattr(following, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(following, "AWAY_SECONDS", request.param)
    async with open_house(agent) as house:
        started = await house.runner.start(alice, await house.thread(), request_for("go"))
        events = house.runner.follow("alice", started.run)
        first = await anext(events)
        assert first.type == "run.started"
        outage = Outage(house.store, monkeypatch)
        # Something was lost on the way: it has to be read.
        for readers in house.bus._readers.values():
            for reader in readers:
                reader.wake()
        rest = asyncio.create_task(collect(events))
        await asyncio.wait_for(outage.asked.wait(), 20)
        yield house, outage, go, rest
        go.set()
        rest.cancel()
        await asyncio.wait({rest})


async def collect(events):
    return [event async for event in events if event is not None]


async def test_events_go_on_where_they_stopped_when_it_is_over(reading):
    _, outage, go, rest = reading
    go.set()
    outage.is_over = True
    events = await asyncio.wait_for(rest, 20)
    assert [event.seq for event in events] == list(range(2, 2 + len(events)))
    assert events[-1].type == "run.completed"


@pytest.mark.parametrize("reading", [0.0], indirect=True)
async def test_nobody_is_kept_waiting_for_ever(reading):
    _, _, _, rest = reading
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(rest, 20)


async def test_a_server_that_stops_keeps_nobody(reading):
    house, _, _, rest = reading
    house.bus.close()
    assert {event.type for event in await asyncio.wait_for(rest, 20)} <= {"message.delta"}
