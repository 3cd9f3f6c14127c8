"""Nodes and tools of 10xgraph that wait for a yes."""

import json
from itertools import pairwise

import pytest

pytest.importorskip("tenxgraph", reason="10xgraph is not installed; it needs Python >= 3.12")

from injectq import InjectQ
from tenxgraph.core.graph import StateGraph, ToolNode
from tenxgraph.core.state import AgentState, Message
from tenxgraph.storage.checkpointer import SqliteCheckpointer
from tenxgraph.utils import END
from tenxgraph.utils.interrupt import interrupt

from agentflow_server import NotApproved, approve, approve_sync
from agentflow_server.adapters.tenxgraph import TenxGraphAgent


def graph_of(*nodes, **options):
    builder = StateGraph(container=InjectQ())
    for node in nodes:
        builder.add_node(node.__name__, node)
    for one, following in pairwise(nodes):
        builder.add_edge(one.__name__, following.__name__)
    builder.add_edge(nodes[-1].__name__, END)
    return builder.set_entry_point(nodes[0].__name__).compile(**options)


@pytest.fixture
async def open_graph(talk):
    agents = []

    async def open_graph(graph):
        agents.append(TenxGraphAgent(graph, name="main"))
        await agents[-1].open()
        return talk(agents[-1])

    yield open_graph
    for agent in agents:
        await agent.close()


def question(action, **details):
    return {"type": "approval_required", "action": action, "details": details}


YES, NO = {"approved": True, "comment": "fine"}, {"approved": False, "comment": "why?"}


async def test_a_node_goes_on_when_it_may(open_graph):
    async def send(state: AgentState, config: dict):
        approval = await approve(config, "send 3 emails", details={"to": ["bob"]})
        return f"sent, {approval.comment}"

    talk = await open_graph(graph_of(send))
    for _ in range(2):
        assert talk.asked(await talk.say("go")) == [question("send 3 emails", to=["bob"])]
        assert talk.texts(await talk.answer(YES)) == ["sent, fine"]


async def test_a_node_that_is_refused_may_do_something_else(open_graph):
    def send(state: AgentState, config: dict):
        try:
            approve_sync(config, "send 3 emails")
        except NotApproved as refusal:
            return f"kept: {refusal.comment}"

    talk = await open_graph(graph_of(send))
    await talk.say("go")
    assert talk.texts(await talk.answer(NO)) == ["kept: why?"]
    await talk.say("go")
    (said,) = talk.texts(await talk.answer("yes"))
    assert said.startswith("kept: Not understood")


async def test_a_refusal_that_nobody_catches_is_the_cause_of_the_failure(open_graph):
    async def send(state: AgentState, config: dict):
        await approve(config, "send 3 emails")

    talk = await open_graph(graph_of(send))
    await talk.say("go")
    with pytest.raises(Exception, match="Not approved") as failure:
        await talk.answer(NO)
    assert isinstance(failure.value.__cause__, NotApproved)
    assert talk.asked(await talk.say("again")) == [question("send 3 emails")]


async def test_a_yes_is_good_for_what_was_shown_and_for_nothing_else(open_graph):
    numbers = iter([3, 4, 4])

    async def send(state: AgentState, config: dict):
        number = next(numbers)
        await approve(config, "send emails", details={"number": number})
        return f"sent {number}"

    talk = await open_graph(graph_of(send))
    assert talk.asked(await talk.say("go")) == [question("send emails", number=3)]
    assert talk.asked(await talk.answer(True)) == [question("send emails", number=4)]
    assert talk.texts(await talk.answer(True)) == ["sent 4"]


async def test_a_node_asks_for_several_approvals_among_its_own_questions(open_graph):
    async def work(state: AgentState, config: dict):
        one = await approve(config, "same")
        name = interrupt("name?")
        two = await approve(config, "same")
        return f"{one.comment} {name} {two.comment}"

    talk = await open_graph(graph_of(work))
    assert talk.asked(await talk.say("go")) == [question("same")]
    assert talk.asked(await talk.answer({"approved": True, "comment": "a"})) == ["name?"]
    assert talk.asked(await talk.answer("bob")) == [question("same")]
    assert talk.texts(await talk.answer({"approved": True, "comment": "c"})) == ["a bob c"]


def toolbox(*people):
    """A model that wants to send to all of them at once, and a tool that asks before it does."""
    sent = []

    async def send(to: str, config: dict | None = None) -> str:
        """Send an email."""
        await approve(config, f"send an email to {to}", details={"to": to})
        sent.append(to)
        return f"sent to {to}"

    def call(to):
        function = {"name": "send", "arguments": json.dumps({"to": to})}
        return {"id": f"call-{to}", "type": "function", "function": function}

    def think(state: AgentState):
        if state.context[-1].role == "tool":
            return "done"
        message = Message.text_message("", role="assistant")
        message.tools_calls = [call(to) for to in people]
        return message

    builder = StateGraph(container=InjectQ())
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode([send]))
    builder.set_entry_point("think")
    builder.add_conditional_edges(
        "think",
        lambda state: "tools" if state.context[-1].tools_calls else END,
        {"tools": "tools", END: END},
    )
    builder.add_edge("tools", "think")
    return builder.compile(), sent


async def test_tools_are_asked_for_one_after_the_other(open_graph):
    graph, sent = toolbox("a", "b")
    talk = await open_graph(graph)
    assert talk.asked(await talk.say("go")) == [question("send an email to a", to="a")]
    assert talk.asked(await talk.answer(True)) == [question("send an email to b", to="b")]
    assert "b" not in sent
    assert talk.texts(await talk.answer(True))[-1] == "done"
    assert set(sent) == {"a", "b"}


async def test_a_model_is_told_that_its_tool_was_refused(open_graph):
    graph, sent = toolbox("a")
    talk = await open_graph(graph)
    await talk.say("go")
    said = talk.texts(await talk.answer(NO))
    assert "Not approved" in said[0]
    assert (said[-1], sent) == ("done", [])


async def test_an_approval_outlives_the_server(tmp_path, talk):
    pytest.importorskip("aiosqlite", reason="its durable checkpointer needs it")

    async def send(state: AgentState, config: dict):
        await approve(config, "send", details={"many": [2**70, 0.1, "ä", None, {"a": True}]})
        return "sent"

    async def start():
        checkpointer = SqliteCheckpointer(tmp_path / "state.db")
        agent = TenxGraphAgent(graph_of(send, checkpointer=checkpointer), name="main")
        await agent.open()
        return agent

    conversation = talk(await start())
    await conversation.say("go")
    await conversation.agent.close()
    conversation.agent = await start()
    assert conversation.texts(await conversation.answer(True)) == ["sent"]
    await conversation.agent.close()


async def test_a_claim_cannot_take_the_place_of_the_framework(open_graph):
    async def send(state: AgentState, config: dict):
        await approve(config, "send")

    talk = await open_graph(graph_of(send))
    asked = await talk.say("go", claims={"configurable": {}, "_interrupt_scope": {}})
    assert talk.asked(asked) == [question("send")]


async def test_who_is_outside_of_a_run_cannot_ask():
    with pytest.raises(TypeError, match="expected the config"):
        await approve({"thread_id": "t1"}, "send")
