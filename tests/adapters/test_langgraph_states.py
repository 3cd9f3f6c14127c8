"""The states that LangGraph keeps of a thread."""

import json
from itertools import pairwise

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from agentflow_server.errors import NotFound
from agentflow_server.interfaces import HasState


class State(MessagesState):
    anything: object


async def count(state):
    text = f"{len(state['messages'])}: {state['messages'][-1].content}"
    return {"messages": [AIMessage(text)], "anything": b"\xff"}


async def ask(state):
    if state["messages"][-1].content.endswith("ask"):
        return {"messages": [AIMessage(interrupt({"sure": True}))]}
    return {}


@pytest.fixture(params=["ours", "his"])
async def conversation(request, open_graph):
    builder = StateGraph(State)
    builder.add_sequence([count, ask])
    builder.add_edge(START, "count")
    saver = InMemorySaver() if request.param == "his" else None
    conversation = await open_graph(builder.compile(checkpointer=saver))
    assert isinstance(conversation.agent, HasState)
    return conversation


def contents(state):
    return [message["content"] for message in state["values"]["messages"]]


async def test_a_state_is_shown_as_json_and_without_any_claim(conversation):
    claims = {"email": "alice@example.com", "api_key": "secret", "user_id": "alice"}
    await conversation.say("Hi", claims=claims, client={"tags": ["sold"]})
    state = await conversation.agent.get_state("t1")
    shown = json.dumps(state, allow_nan=False)
    assert contents(state) == ["Hi", "1: Hi"]
    assert state["next"] == []
    assert state["metadata"] == {
        "source": "loop",
        "step": 2,
        "run_id": conversation.run_id("t1"),
    }
    assert state["created_at"].startswith("20")
    assert not any(word in shown for word in ("secret", "alice", "langgraph_auth"))


async def test_a_waiting_thread_shows_where_and_for_what(conversation):
    events = await conversation.say("ask")
    state = await conversation.agent.get_state("t1")
    assert state["next"] == ["ask"]
    assert state["interrupts"] == [asked.model_dump() for asked in events[-1].interrupts]


async def test_an_unknown_thread_has_an_empty_state_and_no_history(conversation):
    state = await conversation.agent.get_state("t1")
    assert (state["values"], state["checkpoint_id"], state["created_at"]) == ({}, None, None)
    assert await conversation.agent.list_history("t1", limit=10) == []


async def test_the_history_is_paged_from_the_newest_on(conversation):
    await conversation.say("one")
    await conversation.say("two")
    history = await conversation.agent.list_history("t1", limit=100)
    assert (
        history[0]["checkpoint_id"] == (await conversation.agent.get_state("t1"))["checkpoint_id"]
    )
    for newer, older in pairwise(history):
        assert newer["parent_checkpoint_id"] == older["checkpoint_id"]
    paged = await conversation.agent.list_history("t1", limit=3)
    while page := await conversation.agent.list_history(
        "t1", limit=3, before=paged[-1]["checkpoint_id"]
    ):
        paged += page
    assert paged == history


async def test_a_forked_thread_goes_on_from_there(conversation):
    await conversation.say("one")
    earlier = (await conversation.agent.get_state("t1"))["checkpoint_id"]
    await conversation.say("two")
    await conversation.agent.fork("t1", earlier)
    assert contents(await conversation.agent.get_state("t1")) == ["one", "1: one"]
    assert await conversation.ask("three") == "3: three"


@pytest.mark.parametrize(
    "checkpoint_id", ["1ef4f797-8335-6428-8001-8a1503f9b875", "", "x' OR 1=1", "\x00"]
)
async def test_there_is_no_fork_at_an_unknown_checkpoint(conversation, checkpoint_id):
    await conversation.say("one")
    with pytest.raises(NotFound):
        await conversation.agent.fork("t1", checkpoint_id)


async def test_a_checkpoint_of_another_thread_is_unknown(conversation):
    await conversation.say("one", "t2")
    other = (await conversation.agent.get_state("t2"))["checkpoint_id"]
    await conversation.say("one")
    with pytest.raises(NotFound):
        await conversation.agent.fork("t1", other)


async def test_a_copied_thread_lives_its_own_life(conversation):
    await conversation.say("one")
    await conversation.say("ask")
    for _ in range(2):
        await conversation.agent.copy("t1", "t2")
    original = await conversation.agent.list_history("t1", limit=100)
    assert await conversation.agent.list_history("t2", limit=100) == original
    assert (await conversation.agent.get_state("t2"))["interrupts"] != []
    assert await conversation.ask("two", "t2") == "5: two"
    assert conversation.texts(await conversation.answer("yes")) == ["yes"]
    await conversation.agent.forget("t1")
    assert len(contents(await conversation.agent.get_state("t2"))) == 6


async def test_a_graph_without_memory_has_no_state(open_graph):
    builder = StateGraph(State)
    builder.add_node(count)
    builder.add_edge(START, "count")
    talk = await open_graph(builder.compile(checkpointer=False))
    with pytest.raises(NotFound):
        await talk.agent.get_state("t1")
