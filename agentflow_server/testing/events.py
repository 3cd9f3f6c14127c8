"""What every EventBus has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from collections.abc import Sequence

import pytest

from agentflow_server.errors import ServerStopping
from agentflow_server.interfaces import EventBus, Subscription
from agentflow_server.models import Event
from agentflow_server.testing.store_data import make_id

PATIENCE = 20.0
"""Seconds after which a test gives up. No bus takes so long."""

SOON = 0.001


def make_events(run_id: str, *numbers: int) -> list[Event]:
    return [Event(run_id, seq, "message.delta", {"delta": f"part {seq}"}) for seq in numbers]


async def receive_all(subscription: Subscription, count: int) -> list[Event]:
    """The next `count` events, however many at a time they come."""
    found: list[Event] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found.extend(await subscription.receive(PATIENCE))
    return found


class EventBusSuite:
    """Subclass it, give it your bus, and run pytest:

    class TestMyBus(EventBusSuite):
        @pytest.fixture
        async def replicas(self):
            async with MyBus(url) as one, MyBus(url) as other:
                yield one, other

    A bus that is one process's own is its only replica.
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def replicas(self) -> Sequence[EventBus]:
        """One bus, or several ones that know of each other."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def bus(self, replicas: Sequence[EventBus]) -> EventBus:
        return replicas[0]

    # Beside the worker

    async def test_a_reader_gets_what_is_published_after_it_came(self, bus: EventBus) -> None:
        run_id = make_id()
        bus.publish(make_events(run_id, 1))
        async with bus.subscribe(run_id) as subscription:
            bus.publish(make_events(run_id, 2, 3))
            bus.publish(make_events(run_id, 4))
            assert await receive_all(subscription, 3) == make_events(run_id, 2, 3, 4)

    async def test_every_reader_gets_everything(self, bus: EventBus) -> None:
        run_id = make_id()
        async with bus.subscribe(run_id) as one, bus.subscribe(run_id) as other:
            bus.publish(make_events(run_id, 1))
            assert await receive_all(one, 1) == make_events(run_id, 1)
            assert await receive_all(other, 1) == make_events(run_id, 1)

    async def test_a_reader_that_waits_is_woken(self, bus: EventBus) -> None:
        run_id = make_id()
        async with bus.subscribe(run_id) as subscription:
            waiting = asyncio.create_task(receive_all(subscription, 1))
            await asyncio.sleep(0)
            bus.publish(make_events(run_id, 1))
            assert await waiting == make_events(run_id, 1)

    async def test_nobody_hears_of_other_runs(self, bus: EventBus) -> None:
        run_id = make_id()
        async with bus.subscribe(run_id) as subscription:
            bus.publish(make_events(make_id(), 1))
            bus.publish(make_events(run_id, 1))
            assert await receive_all(subscription, 1) == make_events(run_id, 1)

    async def test_a_reader_waits_no_longer_than_it_wants(self, bus: EventBus) -> None:
        async with bus.subscribe(make_id()) as subscription:
            assert await subscription.receive(SOON) == ()

    async def test_a_reader_that_was_away_sees_a_gap_or_everything(self, bus: EventBus) -> None:
        run_id = make_id()
        async with bus.subscribe(run_id) as subscription:
            for seq in range(1, 2001):
                bus.publish(make_events(run_id, seq))
            async with asyncio.timeout(PATIENCE):
                received: list[Event] = []
                while not received or received[-1].seq != 2000:
                    received.extend(await subscription.receive(PATIENCE))
        numbers = [event.seq for event in received]
        assert numbers == sorted(set(numbers)), "in order, none of them twice"

    async def test_nothing_is_as_good_as_no_event(self, bus: EventBus) -> None:
        run_id = make_id()
        async with bus.subscribe(run_id) as subscription:
            bus.publish([])
            bus.publish(make_events(run_id, 1))
            assert await receive_all(subscription, 1) == make_events(run_id, 1)

    # The end

    async def test_a_reader_that_waits_is_told_that_the_server_stops(self, bus: EventBus) -> None:
        async with bus.subscribe(make_id()) as subscription:
            waiting = asyncio.create_task(receive_all(subscription, 1))
            await asyncio.sleep(0)
            bus.close()
            with pytest.raises(ServerStopping):
                await waiting

    async def test_what_was_published_before_the_end_is_received_before_it(
        self, bus: EventBus
    ) -> None:
        run_id = make_id()
        async with bus.subscribe(run_id) as subscription:
            bus.publish(make_events(run_id, 1))
            bus.close()
            assert await receive_all(subscription, 1) == make_events(run_id, 1)
            with pytest.raises(ServerStopping):
                await subscription.receive(PATIENCE)

    async def test_who_comes_after_the_end_is_told_so_too(self, bus: EventBus) -> None:
        bus.close()
        bus.close()
        async with bus.subscribe(make_id()) as subscription:
            with pytest.raises(ServerStopping):
                await subscription.receive(PATIENCE)
        bus.publish(make_events(make_id(), 1))

    # Replicas

    async def test_a_reader_elsewhere_is_sent_to_the_store(
        self, replicas: Sequence[EventBus]
    ) -> None:
        """`()` long before the time is over, or the events themselves."""
        run_id = make_id()
        async with replicas[-1].subscribe(run_id) as subscription:
            replicas[0].publish(make_events(run_id, 1))
            async with asyncio.timeout(PATIENCE):
                assert list(await subscription.receive(10 * PATIENCE)) in (
                    [],
                    make_events(run_id, 1),
                )

    async def test_a_replica_that_stops_tells_its_own_readers_alone(
        self, replicas: Sequence[EventBus]
    ) -> None:
        if len(replicas) == 1:
            pytest.skip("there is only one replica")
        run_id = make_id()
        replicas[0].close()
        async with replicas[-1].subscribe(run_id) as subscription:
            replicas[-1].publish(make_events(run_id, 1))
            assert await receive_all(subscription, 1) == make_events(run_id, 1)
