"""What a graph's run writes while another worker has it, or after it has ended: nothing."""

import asyncio
import threading
from typing import Annotated

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from typing_extensions import TypedDict

from agentflow_server.adapters.langgraph_memory import _make_saver
from agentflow_server.errors import LeaseLost
from agentflow_server.interfaces.leases import HeldLease, holding
from agentflow_server.models import RunOutcome
from agentflow_server.testing.store_data import ALICE, make_thread, new_run

ADDRESS = {"configurable": {"thread_id": "t1", "checkpoint_ns": "", "checkpoint_id": None}}


class DeltaState(TypedDict):
    messages: Annotated[list, DeltaChannel(_messages_delta_reducer)]


class Waiting:
    """A node that goes on when it is told to."""

    def __init__(self):
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, state):
        self.begun.set()
        await self.go.wait()
        return {"messages": [AIMessage("written")]}


def graph_of(*nodes, state=MessagesState):
    builder = StateGraph(state)
    builder.add_sequence([(f"node{n}", node) for n, node in enumerate(nodes)])
    builder.add_edge(START, "node0")
    return builder.compile()


@pytest.fixture
async def saver(database):
    saver = _make_saver(database)
    await saver.open()
    return saver


async def start_run(database, thread_id=None):
    thread_id = thread_id or (await make_thread(database)).thread_id
    return (await database.start_run(ALICE, new_run(thread_id, "Hi"))).active


def lease_of(active):
    return active.run.run_id, active.lease


async def test_a_run_writes_while_its_lease_holds_and_nothing_after_that(
    open_graph, database, saved_rows
):
    node = Waiting()
    talk = await open_graph(graph_of(node))
    active = await start_run(database)
    with holding(*lease_of(active)):
        turn = asyncio.create_task(talk.say("Hi"))
    await node.begun.wait()
    again = await database.take_over(active)
    before = await saved_rows(database)
    assert before
    node.go.set()
    with pytest.raises(LeaseLost):
        await turn
    assert await saved_rows(database) == before
    with holding(*lease_of(again)):
        assert await talk.ask("Hi", "t2") == "written"


async def test_an_agent_that_would_not_stop_writes_nothing_into_the_next_run(
    open_graph, database, saved_rows
):
    node = Waiting()
    talk = await open_graph(graph_of(node))
    active = await start_run(database)
    with holding(*lease_of(active)):
        turn = asyncio.create_task(talk.say("Hi"))
    await node.begun.wait()
    await database.finish_run(active, RunOutcome("cancelled"), [], [])
    await start_run(database, active.run.thread_id)
    before = await saved_rows(database)
    node.go.set()
    with pytest.raises(LeaseLost):
        await turn
    assert await saved_rows(database) == before


@pytest.mark.parametrize("state", [MessagesState, DeltaState])
async def test_who_lost_the_lease_cannot_undo_either(open_graph, database, saved_rows, state):
    talk = await open_graph(graph_of(lambda _: {"messages": [AIMessage("said")]}, state=state))
    active = await start_run(database)
    await talk.say("one")
    before = await saved_rows(database)
    await database.take_over(active)
    with holding(*lease_of(active)), pytest.raises(LeaseLost):
        await talk.undo()
    assert await saved_rows(database) == before
    await talk.undo()
    assert (await talk.agent.get_state("t1"))["values"].get("messages", []) == []


async def test_every_way_to_write_is_fenced(database, saver, saved_rows):
    active = await start_run(database)
    with holding(*lease_of(active)):
        saved = await saver.aput(ADDRESS, empty_checkpoint(), {"run_id": "r1"}, {})
        await saver.aput_writes(saved, [("messages", "kept")], "task")
    before = await saved_rows(database)
    assert len(before) == 2
    await database.take_over(active)
    with holding(*lease_of(active)):
        for refused in (
            saver.aput(saved, empty_checkpoint(), {"run_id": "r1"}, {}),
            saver.aput_writes(saved, [("messages", "lost")], "other task"),
            saver.aput_writes(saved, [("__error__", "lost")], "task"),
            saver.forget_run("t1", "r1"),
            saver.adelete_thread("t1"),
        ):
            with pytest.raises(LeaseLost):
                await refused
    assert await saved_rows(database) == before
    await saver.forget_run("t1", "r1")
    assert await saved_rows(database) == []


async def test_a_thread_without_context_variables_is_fenced_as_well(
    open_graph, database, saved_rows
):
    """A pool of the user's does not hand them on; whoever runs a subgraph there passes `config`."""
    inner = graph_of(lambda _: {"messages": [AIMessage("inner")]})
    begun, go, errors = asyncio.Event(), threading.Event(), []
    loop = asyncio.get_running_loop()

    def outer(state, config: RunnableConfig):
        def work():
            loop.call_soon_threadsafe(begun.set)
            go.wait()
            try:
                inner.invoke({"messages": []}, config)
            except LeaseLost as exc:
                errors.append(exc)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    talk = await open_graph(graph_of(outer))
    active = await start_run(database)
    with holding(*lease_of(active)):
        turn = asyncio.create_task(talk.say("Hi"))
    await begun.wait()
    await database.take_over(active)
    before = await saved_rows(database)
    go.set()
    with pytest.raises(LeaseLost):
        await turn
    assert len(errors) == 1
    assert await saved_rows(database) == before


async def test_a_lease_is_nowhere_in_what_is_stored_or_seen(open_graph, database, saved_rows):
    active = await start_run(database)
    talk = await open_graph(graph_of(lambda _: {"messages": [AIMessage("said")]}))
    with holding(*lease_of(active)):
        events = await talk.say("Hi")
    history = await talk.agent.list_history("t1", limit=9)
    assert active.lease not in f"{events} {history} {await saved_rows(database)}"
    assert active.lease not in repr(HeldLease(*lease_of(active)))
