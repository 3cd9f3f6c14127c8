"""Graphs in processes that share a database: one goes on where another stopped."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import pytest

from agentflow_server.testing.engine_data import PATIENCE

pytest.importorskip("langgraph.checkpoint.postgres")

SCRIPT = Path(__file__).with_name("graph_process.py")


@pytest.fixture
def start(fleet, postgres_url):
    return partial(fleet.start, postgres_url, script=SCRIPT)


async def checkpoints(api, thread_id):
    async def select(connection):
        tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
        found = [
            await connection.execute(f"SELECT * FROM {table} WHERE thread_id = %s", [thread_id])
            for table in tables
        ]
        return [row for cursor in found for row in await cursor.fetchall()]

    return await api.store.read(select)


async def test_a_question_of_one_process_is_answered_by_another(
    fleet, start, open_api, postgres_url
):
    async with open_api(postgres_url) as api:
        first = start()
        run = await api.start(await api.thread(), "ask")
        async with asyncio.timeout(PATIENCE):
            while not (await api.look(run)).interrupts:
                await asyncio.sleep(0.02)
        fleet.send(first, signal.SIGKILL)
        second = start()
        await api.resume(run)
        assert (await api.ended(run)).status == "success"
        assert await api.answers(run) == ["first", "yes"]
        assert [pid for pid, _, _ in fleet.log("first")] == [first]
        assert [pid for pid, _, _ in fleet.log("second")] == [first, second]


async def test_what_a_killed_process_has_done_is_not_done_again(
    fleet, start, open_api, postgres_url
):
    async with open_api(postgres_url) as api:
        first = start()
        run = await api.start(await api.thread(), "wait")
        assert await fleet.seen("second", "second") == first
        second = start()
        fleet.send(first, signal.SIGKILL)
        assert await fleet.seen("second", "second", besides=first) == second
        fleet.let_go("wait")
        ended = await api.ended(run)
        assert (ended.status, ended.attempt) == ("success", 2)
        assert await api.answers(run) == ["first", "second"]
        assert [pid for pid, _, _ in fleet.log("first")] == [first]


async def test_a_process_that_was_paused_for_too_long_writes_no_checkpoint(
    fleet, start, open_api, postgres_url
):
    async with open_api(postgres_url) as api:
        # It asks so seldom whether its runs are its own, that the graph is the first to find out.
        first = start(lease=100)
        run = await api.start(await api.thread(), "wait")
        assert await fleet.seen("second", "second") == first
        fleet.send(first, signal.SIGSTOP)
        second = start()
        assert await fleet.seen("second", "second", besides=first) == second
        fleet.let_go("wait")
        assert (await api.ended(run)).status == "success"
        before = await checkpoints(api, run.thread_id)
        fleet.send(first, signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            while "was ended elsewhere" not in fleet.errors():
                await asyncio.sleep(0.02)
        fleet.send(first, signal.SIGTERM)
        assert await fleet.end(first) == 0
        assert "its graph is stopped" in fleet.errors()
        assert await checkpoints(api, run.thread_id) == before
        following = await api.start(run.thread_id, "go on")
        assert (await api.ended(following)).status == "success"
        assert len(await api.answers(following)) == 2
