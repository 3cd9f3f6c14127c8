"""Where in a conversation LangGraph's checkpoints are, and whose they are in a copy."""

from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer

from agentflow_server.adapters.langgraph_states import address
from agentflow_server.models import CopyPoint


class DeltaState(TypedDict):
    messages: Annotated[list[Any], DeltaChannel(_messages_delta_reducer)]


@pytest.fixture(params=[MessagesState, DeltaState], ids=["plain", "delta"])
def state(request):
    return request.param


@pytest.fixture(params=["ours", "his"])
async def conversation(request, state, open_graph):
    builder = StateGraph(state)
    builder.add_sequence([("one", lambda _: {"messages": [("ai", "1")]}), ("two", lambda _: {})])
    builder.add_edge(START, "one")
    saver = InMemorySaver() if request.param == "his" else None
    return await open_graph(builder.compile(checkpointer=saver))


async def history(conversation, thread_id="t1"):
    """Oldest first."""
    return (await conversation.agent.list_history(thread_id, limit=99))[::-1]


async def test_a_checkpoint_knows_how_much_of_a_turn_it_has(conversation):
    await conversation.say("Hi")
    run_id = conversation.run_id("t1")
    points = []
    for state in await history(conversation):
        await conversation.agent.copy("t1", "t2")
        points.append(await conversation.agent.fork("t2", state["checkpoint_id"]))
        await conversation.agent.forget("t2")
    parts = ("nothing", "question", "question", "everything")
    assert points == [CopyPoint(run_id, part) for part in parts]


async def test_a_fork_belongs_to_the_run_it_was_made_from(conversation):
    await conversation.say("Hi")
    run_id = conversation.run_id("t1")
    middle = (await history(conversation))[1]
    await conversation.agent.fork("t1", middle["checkpoint_id"])
    forked = await conversation.agent.get_state("t1")
    assert forked["metadata"]["run_id"] == run_id
    assert (forked["values"], forked["next"]) == (middle["values"], middle["next"])
    point = await conversation.agent.fork("t1", forked["checkpoint_id"])
    assert point == CopyPoint(run_id, "everything")


async def test_the_first_state_can_be_forked(conversation):
    await conversation.say("Hi")
    first = (await history(conversation))[0]
    await conversation.agent.fork("t1", first["checkpoint_id"])
    assert (await conversation.agent.get_state("t1"))["values"].get("messages", []) == []
    assert await conversation.ask("Again") == "1"


async def test_runs_have_other_names_in_a_copy_and_the_rest_is_the_same(conversation):
    await conversation.say("Hi")
    first = conversation.run_id("t1")
    await conversation.say("Hi")
    second = conversation.run_id("t1")
    await conversation.agent.copy("t1", "t2", {first: 'new "run"', "unknown": "x"})
    for old, new in zip(
        await history(conversation), await history(conversation, "t2"), strict=True
    ):
        called = {first: 'new "run"', second: second}[old["metadata"]["run_id"]]
        assert new == {**old, "metadata": {**old["metadata"], "run_id": called}}


async def test_a_state_that_no_run_made_is_nowhere_in_the_conversation(conversation):
    await conversation.say("Hi")
    graph = conversation.agent._graph
    made = await graph.aupdate_state(address("t1"), {"messages": [("ai", "mine")]})
    await conversation.agent.copy("t1", "t2", {"r": "s"})
    checkpoint_id = made["configurable"]["checkpoint_id"]
    assert await conversation.agent.fork("t2", checkpoint_id) is None
    state = await conversation.agent.get_state("t2")
    assert [m["content"] for m in state["values"]["messages"]] == ["Hi", "1", "mine"]
    assert "run_id" not in state["metadata"]


async def test_a_fork_of_a_copy_goes_on_from_there(conversation):
    for text in ("one", "two", "three"):
        await conversation.say(text)
    for n, state in enumerate(await history(conversation)):
        known = state["values"].get("messages", [])
        await conversation.agent.copy("t1", f"copy {n}")
        await conversation.agent.fork(f"copy {n}", state["checkpoint_id"])
        forked = await conversation.agent.get_state(f"copy {n}")
        assert forked["values"].get("messages", []) == known
        await conversation.say("on", f"copy {n}")
        later = await conversation.agent.get_state(f"copy {n}")
        contents = [m["content"] for m in later["values"]["messages"]]
        assert contents == [*(m["content"] for m in known), "on", "1"]
