"""Several processes on one database, in so far as one process can show that."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from agentflow_server.testing.engine_data import Gate
from agentflow_server.testing.store_data import ALICE

PATIENCE = 30


async def echo(messages, config):
    return messages[-1]["content"]


async def never(messages, config):
    raise AssertionError("this replica executes nothing")


async def test_however_many_replicas_there_are_a_thread_has_one_run_at_a_time(open_distributed):
    gate = Gate()
    async with (
        open_distributed(gate, concurrency=3) as one,
        open_distributed(gate, concurrency=3) as other,
    ):
        threads = [await one.thread() for _ in range(4)]
        runs = {thread_id: [] for thread_id in threads}
        for number in range(5):
            for index, thread_id in enumerate(threads):
                replica = (one, other)[(number + index) % 2]
                runs[thread_id].append(await replica.start(thread_id, f"{index}-{number}"))
        gate.open(20)
        for index, thread_id in enumerate(threads):
            for run in runs[thread_id]:
                assert (await one.ended(run)).status == "success"
            order = [text for text in gate.order if text.startswith(f"{index}-")]
            assert order == [f"{index}-{number}" for number in range(5)]
    assert gate.collisions == 0


async def test_a_run_is_stopped_whichever_replica_executes_it(open_distributed):
    gate = Gate()
    # So long a lease that the heartbeat alone would come too late.
    async with open_distributed(gate, lease=600.0) as one, open_distributed(never) as other:
        run = await one.start(await one.thread())
        await gate.begun()
        await other.stop(run)
        assert (await other.ended(run)).status == "cancelled"


async def test_a_run_is_stopped_even_if_the_signal_is_lost(open_distributed):
    gate = Gate()
    async with open_distributed(gate) as one:
        run = await one.start(await one.thread())
        await gate.begun()
        await one.store.stop_run(ALICE, run.thread_id, run.run_id, "rollback")
        assert (await one.ended(run)).status == "cancelled"
        assert list(await one.store.run_messages(run.run_id)) == []


async def test_a_signal_alone_stops_nothing(open_distributed):
    gate = Gate()
    async with (
        open_distributed(gate, lease=600.0) as one,
        open_distributed(never, concurrency=0) as other,
    ):
        run, marked = [await one.start(await one.thread()) for _ in range(2)]
        await gate.begun(2)
        other.engine.stop("no such run", "cancel")
        other.engine.stop(run.run_id, "cancel")
        await other.stop(marked)
        assert (await one.ended(marked)).status == "cancelled"
        gate.open()
        assert (await one.ended(run)).status == "success"


async def test_a_replica_without_a_worker_leaves_everything_to_the_others(open_distributed):
    async with open_distributed(never, concurrency=0) as api:
        thread_id = await api.thread()
        runs = [await api.start(thread_id, text) for text in "abc"]
        delayed = await api.start(
            await api.thread(), start_after=datetime.now(UTC) + timedelta(seconds=0.2)
        )
        assert await api.statuses([*runs, delayed]) == ["pending"] * 4
        async with open_distributed(echo, poll=600.0) as worker:
            for run in [*runs, delayed]:
                assert (await api.ended(run)).status == "success"
            told = await api.start(thread_id, "it is told, and does not poll")
            assert (await api.ended(told)).status == "success"
            assert await worker.answers(told) == ["it is told, and does not poll"]


async def test_an_answer_given_where_no_worker_is_reaches_one(open_distributed):
    from agentflow_server import ask

    async def asking(messages, config):
        return await ask(config, {"sure": True})

    async with open_distributed(never, concurrency=0) as api:
        run = await api.start(await api.thread())
        async with open_distributed(asking, poll=600.0):
            assert (await api.ended(run)).status == "interrupted"
            assert (await api.resume(run)).status == "pending"
            ended = await api.ended(run)
            assert (ended.status, ended.attempt) == ("success", 1)
        again = await api.start(run.thread_id)
        async with open_distributed(asking):
            await api.ended(again)
        await api.resume(again, "y")
        async with open_distributed(asking), open_distributed(asking):
            assert (await api.ended(again)).status == "success"
        assert await api.answers(again) == ["y"]


async def test_no_more_answered_runs_are_taken_than_there_is_room_for(open_distributed):
    from agentflow_server import ask

    gate = Gate()

    async def asking(messages, config):
        await ask(config, {"sure": True})
        return await gate(messages, config)

    async with open_distributed(never, concurrency=0) as api:
        runs = [await api.start(await api.thread(), text) for text in "abc"]
        async with open_distributed(asking):
            for run in runs:
                assert (await api.ended(run)).status == "interrupted"
        for run in runs:
            await api.resume(run)
        async with open_distributed(asking, concurrency=1):
            gate.open(3)
            for run in runs:
                assert (await api.ended(run)).status == "success"
    assert (gate.most, sorted(gate.order)) == (1, list("abc"))


async def test_a_replica_that_is_closed_leaves_what_waits_to_the_others(open_distributed):
    gate = Gate()
    async with open_distributed(echo, poll=600.0) as other:
        # What it happens to be claiming when it is told to end, it would execute.
        async with open_distributed(gate, poll=600.0) as one:
            thread_id = await one.thread()
            runs = [await one.start(thread_id, text) for text in "abc"]
            await gate.begun()
            closing = asyncio.create_task(one.engine.drain())
            while one.engine.reserve():
                one.engine.release()
                await asyncio.sleep(0)
            late = await one.start(await one.thread(), "accepted while it closes")
            gate.open()
            await closing
        for run in [*runs, late]:
            assert (await other.ended(run)).status == "success"
    assert gate.order == ["a"]


async def test_a_run_that_takes_long_stays_with_its_worker(open_distributed):
    gate = Gate()
    async with (
        open_distributed(gate, lease=1.5) as one,
        open_distributed(never, lease=1.5, retry=True) as other,
    ):
        run = await one.start(await one.thread())
        begun = await lease_times(other)
        async with asyncio.timeout(PATIENCE):
            while not begun or (await lease_times(other))[0] - begun[0] < 2:
                begun = begun or await lease_times(other)
                await asyncio.sleep(0.05)
        gate.open()
        ended = await other.ended(run)
        assert (ended.status, ended.attempt) == ("success", 1)


async def lease_times(replica):
    async def look(connection):
        found = await connection.execute("SELECT extract(epoch FROM renewed_at) FROM leases")
        return [float(row[0]) for row in await found.fetchall()]

    return await replica.store.read(look)


async def test_an_agent_whose_run_was_taken_away_is_stopped_and_changes_nothing(open_distributed):
    stopped = asyncio.Event()

    async def agent(messages, config):
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            stopped.set()
            raise

    async with open_distributed(agent) as one, open_distributed(echo, retry=True) as other:
        run = await one.start(await one.thread())
        (active,) = await other.store.interrupted_runs()
        taken = await other.store.take_over(active)
        async with asyncio.timeout(PATIENCE):
            await stopped.wait()
        assert (await other.look(run)).status == "running"
        await other.engine.dispatch(taken)
        assert (await other.ended(run)).status == "success"
        assert await other.answers(run) == ["Hello"]


async def test_only_one_replica_takes_up_what_a_dead_one_left(open_distributed):
    gate = Gate()
    async with open_distributed(never, concurrency=0) as api:
        dead = [await api.claim_and_die(await api.thread(), text) for text in "abc"]
    async with (
        open_distributed(gate, lease=1.5, retry=True) as one,
        open_distributed(gate, lease=1.5, retry=True),
    ):
        gate.open(3)
        for active in dead:
            ended = await one.ended(active.run)
            assert (ended.status, ended.attempt) == ("success", 2)
    assert (sorted(gate.order), gate.collisions) == (list("abc"), 0)


async def test_a_replica_that_is_full_leaves_the_dead_to_others(open_distributed):
    gate = Gate()
    async with open_distributed(gate, concurrency=1, lease=1.5, retry=True) as one:
        first = await one.start(await one.thread(), "first")
        dead = await one.claim_and_die(await one.thread(), "dead")
        await gate.begun()
        async with open_distributed(echo, lease=1.5, retry=True):
            assert (await one.ended(dead.run)).status == "success"
        gate.open()
        await one.ended(first)
    assert gate.order == ["first"]


async def test_leases_of_runs_that_have_ended_are_forgotten(open_distributed):
    gate = Gate()
    async with open_distributed(gate, lease=1.5) as one:
        run = await one.start(await one.thread())
        async with asyncio.timeout(PATIENCE):
            while not await lease_times(one):
                await asyncio.sleep(0.01)
        gate.open()
        await one.ended(run)
    async with open_distributed(echo, lease=1.5) as other:
        async with asyncio.timeout(PATIENCE):
            while await lease_times(other):
                await asyncio.sleep(0.01)
        assert await lease_times(other) == []


async def test_the_engine_outlives_a_database_that_restarts(
    own_postgres_server, distributed_at, caplog, monkeypatch
):
    monkeypatch.setattr("agentflow_server.engines.postgres.SILENT_SECONDS", 0.2)
    caplog.set_level(logging.WARNING)
    gate = Gate()
    with own_postgres_server.new_database() as url:
        async with distributed_at(url)(gate, lease=1.5) as replica:
            thread_id = await replica.thread()
            runs = [await replica.start(thread_id, text) for text in "ab"]
            await gate.begun()
            own_postgres_server.stop()
            gate.open(2)
            async with asyncio.timeout(PATIENCE):
                while not replica.engine.problems():
                    await asyncio.sleep(0.05)
                while not any("has to wait" in line for line in caplog.messages):
                    await asyncio.sleep(0.05)
            own_postgres_server.start()
            for run in runs:
                assert (await replica.ended(run)).status in {"success", "error"}
            async with asyncio.timeout(PATIENCE):
                while replica.engine.problems():
                    await asyncio.sleep(0.05)
            after = await replica.start(await replica.thread(), "after")
            gate.open()
            assert (await replica.ended(after)).status == "success"
