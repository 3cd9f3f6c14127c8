"""Our PostgreSQL checkpoints beside those of LangGraph's own saver, and several servers at once."""

import asyncio
import math
from enum import StrEnum
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from langgraph.types import Command, interrupt

pytest.importorskip("psycopg")

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.postgres.base import BasePostgresSaver
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from agentflow_server.adapters.langgraph_memory import _make_saver
from agentflow_server.interfaces.leases import holding
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.testing.store_data import ALICE, make_thread, new_run

THREAD = {"configurable": {"thread_id": "t1"}}


@pytest.fixture
async def store(postgres_url):
    async with PostgresStore(postgres_url) as store:
        yield store


@pytest.fixture
async def saver(store):
    saver = _make_saver(store)
    await saver.open()
    return saver


@pytest.fixture
async def theirs(postgres_url, saver):
    """LangGraph's own saver, in our tables."""
    async with await AsyncConnection.connect(
        postgres_url, autocommit=True, row_factory=dict_row, options="-csearch_path=agentflow"
    ) as connection:
        yield AsyncPostgresSaver(connection)


class Plain(MessagesState):
    number: int


class Delta(TypedDict):
    messages: Annotated[list[Any], DeltaChannel(_messages_delta_reducer, snapshot_frequency=2)]
    number: int


def graph_of(saver, *nodes, state=Plain):
    builder = StateGraph(state)
    builder.add_sequence([(f"node{n}", node) for n, node in enumerate(nodes)])
    builder.add_edge(START, "node0")
    return builder.compile(checkpointer=saver)


async def rows(store, table):
    async def select(connection):
        found = await connection.execute(f"SELECT * FROM agentflow.{table}")
        return sorted(await found.fetchall(), key=str)

    return await store.read(select)


@pytest.mark.parametrize("state", [Plain, Delta])
async def test_langgraphs_own_saver_goes_on_where_ours_stopped_and_back(saver, theirs, state):
    nodes = [
        lambda state: {"messages": [AIMessage(f"{len(state['messages'])}", id=None)], "number": 1},
        lambda state: {"messages": [AIMessage(interrupt("sure?"))]},
    ]
    ours, others = (graph_of(which, *nodes, state=state) for which in (saver, theirs))
    for one, other in ((ours, others), (others, ours)) * 2:
        await one.ainvoke({"messages": [("user", "Hi")]}, THREAD)
        for each in (ours, others):
            assert (await each.aget_state(THREAD)).interrupts[0].value == "sure?"
        assert [state async for state in ours.aget_state_history(THREAD)] == [
            state async for state in others.aget_state_history(THREAD)
        ]
        await other.ainvoke(Command(resume="yes"), THREAD)
        assert (await one.aget_state(THREAD)).values["messages"][-1].content == "yes"
    assert len((await ours.aget_state(THREAD)).values["messages"]) == 12


async def test_both_store_the_same_rows(saver, theirs, store):
    """But for what differs from run to run anyway."""

    def node(state):
        return {"messages": [AIMessage("said", id="2")], "number": 7}

    found = {}
    for name, which in (("ours", saver), ("theirs", theirs)):
        config = {"configurable": {"thread_id": name}}
        await graph_of(which, node).ainvoke({"messages": [("user", "Hi")]}, config)
        found[name] = [
            [shape(row) for row in await rows(store, table) if row[0] == name]
            for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
        ]
    assert found["ours"] == found["theirs"]


def shape(row):
    """A row without ids and times: its types, lengths, and the names in its JSON."""
    return [sorted(part) if isinstance(part, dict) else type(part) for part in row]


class Colour(StrEnum):
    RED = "red"


class Odd(MessagesState):
    value: Any
    colour: Colour


@pytest.mark.parametrize("value", [1e22, 1.0, math.inf, "a\0b", 2**60, True, "", "é", None, -1])
async def test_what_postgresql_cannot_keep_as_json_comes_back_all_the_same(saver, value):
    graph = graph_of(saver, lambda _: {"value": value, "colour": Colour.RED}, state=Odd)
    graph.checkpointer = saver.with_allowlist({(Colour.__module__, "Colour")})
    await graph.ainvoke({"messages": []}, THREAD)
    found = (await graph.aget_state(THREAD)).values["value"]
    assert (type(found), found) == (type(value), value)


async def test_an_undone_run_leaves_no_values_behind(saver, store):
    graph = graph_of(saver, lambda _: {"messages": [AIMessage("said")]})
    for run in ("one", "two"):
        config = {"configurable": {"thread_id": "t1", "run_id": run}}
        await graph.ainvoke({"messages": [("user", "Hi")]}, config)
        if run == "one":
            before = await rows(store, "checkpoint_blobs")
    assert len(await rows(store, "checkpoint_blobs")) > len(before)
    await saver.forget_run("t1", "two")
    assert await rows(store, "checkpoint_blobs") == before


async def test_servers_that_start_together_make_the_tables_once(postgres_url):
    async def start():
        async with PostgresStore(postgres_url) as store:
            await _make_saver(store).open()
            await _make_saver(store).open()
            return await rows(store, "checkpoint_migrations")

    for found in await asyncio.gather(*(start() for _ in range(5))):
        assert found == [(version,) for version in range(len(BasePostgresSaver.MIGRATIONS))]


async def test_tables_of_another_program_are_left_alone(postgres_url, store):
    async with await AsyncConnection.connect(
        postgres_url, autocommit=True, row_factory=dict_row
    ) as connection:
        await AsyncPostgresSaver(connection).setup()
        saver = _make_saver(store)
        await saver.open()
        graph = graph_of(saver, lambda _: {"messages": [AIMessage("said")]})
        await graph.ainvoke({"messages": [("user", "Hi")]}, THREAD)
        assert await AsyncPostgresSaver(connection).aget_tuple(THREAD) is None
        assert await saver.aget_tuple(THREAD) is not None


async def test_a_role_that_may_make_nothing_can_use_what_is_there(
    postgres_server, postgres_url, saver, store
):
    await graph_of(saver, lambda _: {"number": 3}).ainvoke({"messages": []}, THREAD)
    postgres_server.execute(
        "CREATE ROLE guest LOGIN PASSWORD 'guest';"
        "GRANT USAGE ON SCHEMA agentflow TO guest;"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA agentflow TO guest",
        postgres_url,
    )
    place = postgres_url.partition("@")[2]
    try:
        async with PostgresStore(f"postgresql://guest:guest@{place}") as limited:
            later = _make_saver(limited)
            await later.open()
            graph = graph_of(later, lambda state: {"number": state["number"] + 1})
            assert (await graph.ainvoke({"messages": []}, THREAD))["number"] == 4
    finally:
        postgres_server.execute("DROP OWNED BY guest; DROP ROLE guest", postgres_url)


async def test_whoever_takes_a_run_over_waits_for_what_is_being_written(saver, store):
    thread_id = (await make_thread(store)).thread_id
    active = (await store.start_run(ALICE, new_run(thread_id, "Hi"))).active
    written, commit = asyncio.Event(), asyncio.Event()
    write = saver._database.write

    class Slow:
        async def write(self, operation):
            async def slowly(connection):
                async with connection.transaction():
                    result = await operation(connection)
                    written.set()
                    await commit.wait()
                return result

            return await write(slowly)

    saver._database = Slow()
    with holding(active.run.run_id, active.lease):
        address = {"configurable": {"thread_id": "t1", "checkpoint_ns": "", "checkpoint_id": "c"}}
        writing = asyncio.create_task(saver.aput_writes(address, [("messages", "x")], "task"))
    await written.wait()
    taking = asyncio.create_task(store.take_over(active))
    await asyncio.wait({taking}, timeout=0.2)
    assert not taking.done()
    commit.set()
    await writing
    assert (await taking).lease != active.lease
    assert len(await rows(store, "checkpoint_writes")) == 1


class Slow:
    """A database whose first write takes as long as it is told to."""

    def __init__(self, store):
        self.read, self.migrating = store.read, store.migrating
        self._store = store
        self.came, self.go = asyncio.Event(), asyncio.Event()

    async def write(self, operation):
        return await asyncio.shield(asyncio.create_task(self._write(operation)))

    async def _write(self, operation):
        if not self.came.is_set():
            self.came.set()
            await self.go.wait()
        return await self._store.write(operation)


async def test_what_was_being_written_when_a_run_was_stopped_is_forgotten_too(store, saver):
    thread_id = (await make_thread(store)).thread_id
    active = (await store.start_run(ALICE, new_run(thread_id, "Hi"))).active
    run_id = active.run.run_id
    slow = Slow(store)
    late = _make_saver(slow)
    await late.open()
    where = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    with holding(run_id, active.lease):
        put = asyncio.create_task(
            late.aput(where, empty_checkpoint(), {"source": "input", "run_id": run_id}, {})
        )
        await slow.came.wait()
        put.cancel()
        await asyncio.wait({put})
        forgetting = asyncio.create_task(late.forget_run(thread_id, run_id))
        await asyncio.wait({forgetting}, timeout=0.2)
        slow.go.set()
        await forgetting
    while late._writing:
        await asyncio.sleep(0)
    assert await rows(store, "checkpoints") == []
