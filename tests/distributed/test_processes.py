"""Processes that share a database are killed, paused and stopped; so is the database."""

import asyncio
import signal

import pytest

from agentflow_server.errors import StoreUnavailable
from agentflow_server.testing.engine_data import PATIENCE
from agentflow_server.testing.store_data import look_at

ANSWER = "part 0 part 1 part 2 done"


async def said(api, run, count):
    """Returns when so many events are stored."""
    async with asyncio.timeout(PATIENCE), api.bus.subscribe(run.run_id) as subscription:
        while len(await api.store.list_events(run.run_id, after=0, limit=100)) < count:
            await subscription.receive(PATIENCE)


async def check_events(api, run):
    """Numbered without a gap, one beginning to each attempt, one end."""
    events = await api.store.list_events(run.run_id, after=0, limit=1000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    ends = {"run.completed", "run.failed", "run.cancelled"}
    assert [event.type in ends for event in events] == [False] * (len(events) - 1) + [True]


async def test_what_a_killed_process_was_doing_another_one_does(fleet, open_api, postgres_url):
    async with open_api(postgres_url) as api:
        first = fleet.start(postgres_url)
        thread_id = await api.thread()
        runs = [await api.start(thread_id, text) for text in ("wait-a", "b", "c")]
        assert await fleet.seen("begin", "wait-a") == first
        second = fleet.start(postgres_url)
        fleet.send(first, signal.SIGKILL)
        assert await fleet.seen("begin", "wait-a", besides=first) == second
        fleet.let_go("wait-a")
        for run, attempt in zip(runs, (2, 1, 1), strict=True):
            ended = await api.ended(run)
            assert (ended.status, ended.attempt) == ("success", attempt)
            assert await api.answers(run) == [ANSWER]
            await check_events(api, run)
        assert [text for _, _, text in fleet.log("end")] == ["wait-a", "b", "c"]


async def test_a_process_that_was_paused_for_too_long_changes_nothing(
    fleet, open_api, postgres_url
):
    async with open_api(postgres_url) as api:
        first = fleet.start(postgres_url)
        thread_id = await api.thread()
        run = await api.start(thread_id, "wait-a")
        assert await fleet.seen("begin", "wait-a") == first
        fleet.send(first, signal.SIGSTOP)
        second = fleet.start(postgres_url)
        assert await fleet.seen("begin", "wait-a", besides=first) == second
        fleet.let_go("wait-a")
        ended = await api.ended(run)
        assert (ended.status, ended.attempt) == ("success", 2)
        following = await api.start(thread_id, "wait-b")
        assert await fleet.seen("begin", "wait-b") == second
        await said(api, following, 4)
        before = await look_at(api.store, thread_id)
        fleet.send(first, signal.SIGCONT)
        # It finishes its turn, or is stopped; then it is a worker like any other.
        assert await fleet.seen("end", "wait-a", besides=second) == first
        others = [await api.start(await api.thread(), f"wait-{number}") for number in range(5)]
        for number in range(5):
            await fleet.seen("begin", f"wait-{number}")
        assert first in {pid for pid, _, _ in fleet.log("begin")[2:]}
        now = await look_at(api.store, thread_id)
        assert now[:-1] == before[:-1], "the last one is of all threads"
        for number in range(5):
            fleet.let_go(f"wait-{number}")
        fleet.let_go("wait-b")
        for other in [*others, following]:
            assert (await api.ended(other)).status == "success"
        await check_events(api, run)
        assert await api.answers(run) == [ANSWER]


async def test_a_process_that_is_told_to_stop_fails_no_run(fleet, open_api, postgres_url):
    async with open_api(postgres_url) as api:
        first = fleet.start(postgres_url)
        thread_id = await api.thread()
        runs = [await api.start(thread_id, text) for text in ("wait-a", "b")]
        assert await fleet.seen("begin", "wait-a") == first
        second = fleet.start(postgres_url)
        fleet.send(first, signal.SIGTERM)
        fleet.let_go("wait-a")
        for run in runs:
            ended = await api.ended(run)
            assert (ended.status, ended.attempt) == ("success", 1)
        assert await fleet.end(first) == 0
        assert await fleet.seen("end", "b") == second


async def start_somehow(api, thread_id, text):
    """As a client would: again and again, with the same ids it would be the same run."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await api.start(thread_id, text)
            except StoreUnavailable:
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_restart_of_the_database_loses_nothing(fleet, open_api, own_postgres_server):
    with own_postgres_server.new_database() as url:
        async with open_api(url) as api:
            for _ in range(2):
                fleet.start(url)
            threads = [await api.thread() for _ in range(6)]
            runs = []
            for number in range(60):
                if number in {20, 40}:
                    await asyncio.to_thread(own_postgres_server.restart)
                thread_id = threads[number % len(threads)]
                runs.append(await start_somehow(api, thread_id, f"turn-{number}"))
            async with asyncio.timeout(2 * PATIENCE):
                for run in runs:
                    await ended_somehow(api, run)
            for run in runs:
                ended = await api.look(run)
                assert ended.status in {"success", "error"}
                if ended.status == "success":
                    assert await api.answers(run) == [ANSWER]
                await check_events(api, run)
            assert len([1 for run in runs if (await api.look(run)).status == "success"]) >= 40
            after = await api.start(threads[0], "after")
            assert (await api.ended(after)).status == "success"


async def ended_somehow(api, run):
    while True:
        try:
            await api.ended(run)
            return
        except StoreUnavailable:
            await asyncio.sleep(0.05)
