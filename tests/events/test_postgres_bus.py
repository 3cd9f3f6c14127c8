"""What the bus on PostgreSQL does besides the promises of every bus."""

import asyncio
import logging

import pytest

from agentflow_server.errors import StoreUnavailable
from agentflow_server.events.local import LocalEventBus
from agentflow_server.models import Event

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

import psycopg

from agentflow_server.events import notifications
from agentflow_server.events.notifications import CHANNEL
from agentflow_server.events.postgres import PostgresEventBus

NEVER = 1000.0


def event(seq, run_id="r"):
    return Event(run_id, seq, "custom", {})


@pytest.fixture
async def replicas(postgres_url):
    """Without the safety poll: what is not told is never found."""
    async with (
        PostgresEventBus(postgres_url, poll=NEVER) as one,
        PostgresEventBus(postgres_url, poll=NEVER) as other,
    ):
        yield one, other


@pytest.fixture
async def eavesdropper(postgres_url):
    connection = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)
    async with connection:
        await connection.execute(f"LISTEN {CHANNEL}")
        yield connection


async def hear(connection, count=1):
    async with asyncio.timeout(20):
        return [n.payload async for n in connection.notifies(stop_after=count)]


async def test_a_reader_elsewhere_is_woken_at_once(replicas):
    one, other = replicas
    async with asyncio.timeout(20), other.subscribe("r") as subscription:
        one.publish([event(1)])
        assert await subscription.receive(NEVER) == ()
        one.publish([event(2)])
        assert await subscription.receive(NEVER) == ()


async def test_what_is_no_url_is_not_repeated_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr(notifications, "PATIENCE", 0.2)
    with pytest.raises(StoreUnavailable):
        await PostgresEventBus("postgresql://alice:x@localhost/chat?hidden").__aenter__()
    assert "not a URL that PostgreSQL understands" in caplog.text
    assert "hidden" not in caplog.text


async def test_a_reader_elsewhere_looks_into_the_store_even_if_nobody_tells_it(postgres_url):
    async with PostgresEventBus(postgres_url, poll=0.01) as bus, bus.subscribe("r") as subscription:
        async with asyncio.timeout(20):
            assert await subscription.receive(NEVER) == ()


async def test_a_reader_beside_the_worker_is_not_sent_to_the_store_for_nothing():
    bus = LocalEventBus(poll=0.01)
    async with bus.subscribe("r") as subscription:
        bus.publish([event(1)])
        assert await subscription.receive(NEVER) == [event(1)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await subscription.receive(NEVER)
        bus.wake("r")
        assert await subscription.receive(NEVER) == ()
        assert await subscription.receive(NEVER) == (), "the run goes on elsewhere"


async def test_a_reader_that_is_woken_while_it_has_events_still_looks_into_the_store():
    bus = LocalEventBus()
    async with bus.subscribe("r") as subscription:
        bus.publish([event(1)])
        bus.wake("r")
        assert await subscription.receive(NEVER) == [event(1)]
        assert await subscription.receive(NEVER) == ()


async def test_whoever_publishes_is_not_woken_by_his_own_notification(replicas, eavesdropper):
    one, other = replicas
    async with one.subscribe("r") as subscription:
        one.publish([event(1)])
        assert await subscription.receive(NEVER) == [event(1)]
        await hear(eavesdropper)
        other.publish([event(1, "unheard")])
        await hear(eavesdropper)
        one.publish([event(2)])
        assert await subscription.receive(NEVER) == [event(2)]


async def test_many_events_are_told_in_few_small_notifications(replicas, eavesdropper):
    one, other = replicas
    run_ids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(1000)]
    for run_id in run_ids:
        for seq in range(1, 4):
            one.publish([event(seq, run_id)])
    async with other.subscribe(run_ids[0]) as first, other.subscribe(run_ids[-1]) as last:
        payloads = await hear(eavesdropper, 10)
        assert max(map(len, payloads)) < 8000
        assert sum(payload.count("-4000-") for payload in payloads) == 1000
        async with asyncio.timeout(20):
            assert await first.receive(NEVER) == ()
            assert await last.receive(NEVER) == ()


async def test_a_signal_reaches_every_other_process(replicas):
    one, other = replicas
    heard = asyncio.Queue()
    one.listen("stop", lambda body: heard.put_nowait(("one", body)))
    other.listen("stop", lambda body: heard.put_nowait(("other", body)))
    one.tell("unknown", "what")
    one.tell("stop", "r1")
    async with asyncio.timeout(20):
        assert await heard.get() == ("other", "r1")
    other.tell("stop", "r2")
    async with asyncio.timeout(20):
        assert await heard.get() == ("one", "r2")
    assert heard.empty()


@pytest.mark.parametrize("payload", ["", "{}", '["x","events","r"]', "\\ud800", "x" * 7000])
async def test_a_strange_notification_does_no_harm(replicas, eavesdropper, payload):
    one, other = replicas
    async with asyncio.timeout(20), other.subscribe("r") as subscription:
        await eavesdropper.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
        one.publish([event(1)])
        assert await subscription.receive(NEVER) == ()


async def test_what_was_published_last_is_announced_before_the_bus_is_closed(
    postgres_url, eavesdropper
):
    async with PostgresEventBus(postgres_url) as bus:
        bus.publish([event(1, "the last one")])
    assert "the last one" in (await hear(eavesdropper))[0]


async def test_a_bus_that_cannot_listen_does_not_open(monkeypatch):
    monkeypatch.setattr(notifications, "PATIENCE", 0.3)
    with pytest.raises(StoreUnavailable):
        async with PostgresEventBus("postgresql://nobody@127.0.0.1:1/nothing"):
            pass


async def test_after_a_restart_of_the_database_everything_is_heard_again(
    own_postgres_server, caplog
):
    caplog.set_level(logging.WARNING)
    with own_postgres_server.new_database() as url:
        async with (
            asyncio.timeout(40),
            PostgresEventBus(url, poll=NEVER) as one,
            PostgresEventBus(url) as other,
            one.subscribe("r") as subscription,
        ):
            own_postgres_server.stop()
            other.publish([event(1)])
            heard = asyncio.Queue()
            one.listen("stop", heard.put_nowait)
            own_postgres_server.start()
            assert await subscription.receive(NEVER) == (), "something may have been missed"
            while heard.empty():
                other.tell("stop", "r")
                assert await subscription.receive(0.05) == ()
            other.publish([event(2)])
            while await subscription.receive(NEVER) != ():
                pass
    assert any("the database is gone" in line for line in caplog.messages)


async def test_a_connection_on_which_nothing_happens_is_tried_and_kept(replicas, monkeypatch):
    one, other = replicas
    monkeypatch.setattr(notifications, "QUIET_SECONDS", 0.01)
    async with asyncio.timeout(20), other.subscribe("r") as subscription:
        one.publish([event(1)])  # only now does it wait anew
        assert await subscription.receive(NEVER) == ()
        await asyncio.sleep(0.1)
        one.publish([event(2)])
        assert await subscription.receive(NEVER) == ()


async def test_a_listener_of_a_signal_that_fails_is_not_the_end_of_listening(replicas, caplog):
    one, other = replicas
    heard = asyncio.Queue()

    def hear(body):
        if body == "fail":
            raise RuntimeError("as it was asked to")
        heard.put_nowait(body)

    other.listen("stop", hear)
    one.tell("stop", "fail")
    async with asyncio.timeout(20):
        while heard.empty():
            one.tell("stop", "go on")
            await asyncio.sleep(0.05)
    assert "listening went wrong" in caplog.text


async def test_what_cannot_be_told_any_more_does_not_delay_the_end(own_postgres_server):
    with own_postgres_server.new_database() as url:
        async with PostgresEventBus(url) as bus:
            own_postgres_server.stop()
            for number in range(20_000):
                bus.publish([event(1, f"r{number}")])
                bus.tell("stop", f"r{number}")
            assert len(bus._runs) <= 10_000
            assert len(bus._signals) <= 10_000
        own_postgres_server.start()


async def test_whoever_stops_waits_for_readers_of_what_others_publish(replicas):
    one, _ = replicas
    await one.wait_for_readers(NEVER)
    async with one.subscribe("r"), one.subscribe("s"):
        await one.wait_for_readers(0.01)
        waiting = asyncio.create_task(one.wait_for_readers(NEVER))
        await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(20):
        await waiting
