"""LangGraph's checkpoints in the server's own database."""

import asyncio
import operator
from typing import Annotated, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph

from agentflow_server.adapters.langgraph_memory import _make_saver
from agentflow_server.adapters.langgraph_sqlite import create_tables
from agentflow_server.stores.sqlite import SqliteStore


class State(TypedDict):
    steps: Annotated[list[str], operator.add]


@pytest.fixture
async def saver(database):
    saver = _make_saver(database)
    await saver.open()
    return saver


def address(thread="t1", **more):
    return {"configurable": {"thread_id": thread, **more}}


def graph_of(saver, node=lambda state: {"steps": ["done"]}, state=State):
    builder = StateGraph(state)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(checkpointer=saver)


async def test_the_history_of_a_thread_can_be_listed_and_read_at_any_point(saver):
    graph = graph_of(saver)
    await graph.ainvoke({"steps": ["go"]}, address())
    await graph.ainvoke({"steps": ["again"]}, address())
    history = [state async for state in graph.aget_state_history(address())]
    assert [state.values["steps"] for state in history][::3] == [
        ["go", "done", "again", "done"],
        ["go", "done"],
    ]
    earlier = await graph.aget_state(history[3].config)
    assert earlier.values == {"steps": ["go", "done"]}
    newest = [state async for state in graph.aget_state_history(address(), limit=1)]
    assert newest == history[:1]
    assert [state async for state in graph.aget_state_history(address("t2"))] == []


async def test_what_was_looked_at_is_used_once_and_only_for_its_thread(saver):
    graph = graph_of(saver)
    await graph.ainvoke({"steps": ["go"]}, address())
    saved = await saver.look_ahead("t1")
    assert await saver.aget_tuple(address("t2")) is None
    assert await saver.aget_tuple(address()) is not saved
    saved = await saver.look_ahead("t1")
    assert await saver.aget_tuple(address()) is saved
    assert await saver.aget_tuple(address()) is not saved
    saved = await saver.look_ahead("t1")
    earlier = address(
        checkpoint_ns="", checkpoint_id=saved.parent_config["configurable"]["checkpoint_id"]
    )
    assert (await saver.aget_tuple(earlier)).config == saved.parent_config
    assert await saver.look_ahead("t1") == saved


async def test_a_thread_without_checkpoints_is_not_read_twice(saver):
    assert await saver.look_ahead("t1") is None
    await saver.aput(address(checkpoint_ns=""), empty_checkpoint(), {}, {})
    assert await saver.aget_tuple(address()) is None
    assert await saver.aget_tuple(address()) is not None


async def test_a_checkpoint_keeps_its_address_and_nothing_else_of_the_configurable(saver):
    config = address(checkpoint_ns="", checkpoint_id=None, run_id="r1", email="a@example.com")
    await saver.aput(config, empty_checkpoint(), {"source": "input", "step": -1}, {})
    saved = await saver.aget_tuple(address())
    assert saved.metadata == {"source": "input", "step": -1, "run_id": "r1"}


async def test_a_synchronous_node_can_run_a_graph_of_its_own(saver):
    """Its checkpoints go through the same writer, from the node's thread."""

    def inner_node(state):
        return {"steps": ["inner"]}

    inner = graph_of(None, inner_node)

    def outer_node(state):
        config = address("inner")
        shared = inner.copy(update={"checkpointer": saver})
        shared.invoke({"steps": ["go"]}, config)
        shared.invoke({"steps": ["again"]}, config)
        history = [s.values for s in shared.get_state_history(config, limit=1)]
        assert history == [shared.get_state(config).values]
        saver.delete_thread("forgotten")
        return history[0]

    result = await graph_of(saver, outer_node).ainvoke({"steps": []}, address("outer"))
    assert result["steps"] == ["go", "inner", "again", "inner"]


async def test_a_graph_run_synchronously_on_the_loop_is_told_what_to_do(saver):
    with pytest.raises(RuntimeError, match="use its async methods"):
        graph_of(saver).invoke({"steps": ["go"]}, address())


def append(steps, more):
    return [*steps, *(step for update in more for step in update)]


class DeltaState(TypedDict):
    steps: Annotated[list[str], DeltaChannel(append)]


async def test_channels_that_store_only_what_changed_are_restored(saver):
    graph = graph_of(saver, state=DeltaState)
    for n in range(3):
        await graph.ainvoke({"steps": [str(n)]}, address())
    expected = ["0", "done", "1", "done", "2", "done"]
    assert (await graph.aget_state(address())).values == {"steps": expected}
    found = await asyncio.to_thread(
        saver.get_delta_channel_history, config=address(), channels=["steps"]
    )
    assert list(found) == ["steps"]


async def test_many_threads_at_once_keep_their_own_state(saver):
    graph = graph_of(saver)
    await asyncio.gather(*(graph.ainvoke({"steps": [str(n)]}, address(f"t{n}")) for n in range(30)))
    states = [await graph.aget_state(address(f"t{n}")) for n in range(30)]
    assert [state.values["steps"] for state in states] == [[str(n), "done"] for n in range(30)]


async def test_creating_the_tables_commits_nothing_of_others(tmp_path):
    def create_then_fail(at):
        create_tables(at)
        raise LookupError("undo everything")

    def find(at):
        return at.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'").fetchall()

    async with SqliteStore(tmp_path / "agentflow.db") as database:
        with pytest.raises(LookupError):
            await database.write(create_then_fail)
        assert not await database.read(find)


async def test_the_tables_may_be_created_again(saver):
    await asyncio.gather(saver.open(), saver.open())
    assert await saver.aget_tuple(address()) is None
