"""A server on a SQLite file heeds what operators' commands write beside it."""

import asyncio
import logging
import sqlite3
from contextlib import asynccontextmanager

import pytest

from agentflow_server.engines import background, embedded
from agentflow_server.errors import StoreUnavailable
from agentflow_server.runs import following
from agentflow_server.runs.runner import Runner
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.stores.sqlite_neighbours import SqliteNeighbours
from agentflow_server.testing.engine_data import Gate
from agentflow_server.testing.store_data import ALICE, make_thread

PATIENCE = 30


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(embedded, "HEED_SECONDS", 0.01)
    monkeypatch.setattr(embedded, "RETRY_SECONDS", 0.01)


@pytest.fixture
def beside(tmp_path):
    """Opened for each act, as the commands do it."""

    @asynccontextmanager
    async def opened():
        async with SqliteStore(tmp_path / "a.db", exclusive=False, upgrades=False) as store:
            yield store

    return opened


async def cancel(beside, run, how="cancel"):
    async with beside() as command:
        return await command.stop_run(ALICE, run.thread_id, run.run_id, how)


async def send_again(beside, run):
    async with beside() as command:
        owner, new = await command.read_retry(run.run_id)
        return (await command.start_run(owner, new, claim=False)).run


class SecondTimeLucky:
    """An agent that fails once."""

    def __init__(self):
        self.has_failed = False

    async def __call__(self, messages, config):
        if not self.has_failed:
            self.has_failed = True
            raise RuntimeError
        return "better now"


@pytest.mark.parametrize("how", ["cancel", "rollback"])
async def test_a_command_stops_a_run_that_is_executed(open_embedded, beside, how):
    gate = Gate()
    async with open_embedded(gate) as server:
        run, other = [await server.start(await server.thread()) for _ in range(2)]
        await gate.begun(2)
        assert (await cancel(beside, run, how)).status == "running"
        assert (await server.ended(run)).status == "cancelled"
        left = [message.content for message in await server.store.run_messages(run.run_id)]
        assert left == (["Hello"] if how == "cancel" else [])
        assert await server.statuses([other]) == ["running"]
        gate.open()
        assert (await server.ended(other)).status == "success"


async def test_what_a_command_cancels_in_the_line_ends_for_its_readers(
    open_embedded, beside, monkeypatch
):
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", 600.0)
    gate = Gate()
    async with open_embedded(gate) as server:
        thread_id = await server.thread()
        await server.start(thread_id)
        await gate.begun()
        waiting = await server.start(thread_id)
        runner = Runner(server.store, server.bus, server.engine, {"agent": gate})

        async def read():
            stream = runner.follow(ALICE, waiting)
            return [event.type async for event in stream if event]

        async with server.bus.subscribe(waiting.run_id) as place:
            hearing = asyncio.create_task(place.receive(600))
            reading = asyncio.create_task(read())
            assert (await cancel(beside, waiting)).status == "cancelled"
            async with asyncio.timeout(PATIENCE):
                assert await hearing == ()
                assert await reading == ["run.cancelled"]
        gate.open()
    assert gate.order == ["Hello"]


@pytest.mark.parametrize("concurrency", [None, 1])
async def test_what_a_command_sends_again_is_executed(open_embedded, beside, concurrency):
    async with open_embedded(SecondTimeLucky(), concurrency=concurrency) as server:
        failed = await server.ended(await server.start(await server.thread()))
        assert failed.status == "error"
        again = await send_again(beside, failed)
        assert (await server.ended(again)).status == "success"
        assert await server.answers(again) == ["better now"]


async def test_what_a_command_sends_again_waits_for_room(open_embedded, beside):
    gate = Gate()
    async with open_embedded(gate, concurrency=1) as server:
        stopped = await server.start(await server.thread())
        await gate.begun()
        await cancel(beside, stopped)
        await server.ended(stopped)
        busy = await server.start(await server.thread(), "busy")
        await gate.begun(2)
        again = await send_again(beside, stopped)
        gate.open(2)
        assert (await server.ended(again)).status == "success"
        assert (await server.ended(busy)).status == "success"
    assert gate.order == ["Hello", "busy", "Hello"]
    assert gate.most == 1


async def test_a_command_cancels_what_keeps_a_server_from_ending(open_embedded, beside):
    gate = Gate()
    async with open_embedded(gate, grace=600) as server:
        run = await server.start(await server.thread())
        await gate.begun()
        ending = asyncio.create_task(server.engine.drain())
        await asyncio.sleep(0)
        await cancel(beside, run)
        async with asyncio.timeout(PATIENCE):
            assert await ending == 0
        assert await server.statuses([run]) == ["cancelled"]


async def test_what_is_written_while_a_server_starts_is_not_overlooked(open_embedded, beside):
    again = []

    class Overtaken(SqliteStore):
        """Somebody else writes when it has just been looked for what waits."""

        async def claim_next(self, **lease):
            claimed = await super().claim_next(**lease)
            if claimed is None and not again:
                again.append(await send_again(beside, failed))
            return claimed

    agent = SecondTimeLucky()
    async with open_embedded(agent) as server:
        failed = await server.ended(await server.start(await server.thread()))
    async with open_embedded(agent, make_store=Overtaken) as server:
        assert (await server.ended(*again)).status == "success"


async def test_only_what_others_write_counts(tmp_path, beside):
    async with SqliteStore(tmp_path / "a.db") as store:
        neighbours = SqliteNeighbours(store)
        assert not await neighbours.have_written()
        thread = await make_thread(store)
        await store.ping()
        assert not await neighbours.have_written()
        async with beside() as command:
            await command.get_thread(ALICE, thread.thread_id)
            assert not await neighbours.have_written()
            await make_thread(command)
        assert await neighbours.have_written()
        assert not await neighbours.have_written()


def forbid_looking(action, name, *_):
    is_look = action == sqlite3.SQLITE_PRAGMA and name == "data_version"
    return sqlite3.SQLITE_DENY if is_look else sqlite3.SQLITE_OK


class Ear(logging.Handler):
    """Hears of one line of a log."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.heard = asyncio.Event()

    def emit(self, record):
        if self.text in record.getMessage():
            self.heard.set()


async def test_a_server_that_cannot_look_looks_again(open_embedded, beside):
    gate = Gate()
    ear = Ear("looking for what commands have written has to wait")
    async with open_embedded(gate) as server:
        run = await server.start(await server.thread())
        await gate.begun()
        await server.store.write(lambda connection: connection.set_authorizer(forbid_looking))
        with pytest.raises(StoreUnavailable):
            await SqliteNeighbours(server.store).have_written()
        await cancel(beside, run)
        background.log.addHandler(ear)
        try:
            async with asyncio.timeout(PATIENCE):
                await ear.heard.wait()
        finally:
            background.log.removeHandler(ear)
        assert await server.statuses([run]) == ["running"]
        await server.store.write(lambda connection: connection.set_authorizer(None))
        assert (await server.ended(run)).status == "cancelled"
