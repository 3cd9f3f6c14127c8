"""Nodes and tools of LangGraph that wait for a yes."""

import asyncio
import subprocess
import sys

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send, interrupt

from agentflow_server import NotApproved, approve, approve_sync
from agentflow_server.adapters.approving import bind_answer


def graph_of(*nodes):
    builder = StateGraph(MessagesState)
    builder.add_sequence([(node.__name__, node) for node in nodes])
    builder.add_edge(START, nodes[0].__name__)
    return builder.compile()


def says(text):
    return {"messages": [AIMessage(text)]}


def question(action, **details):
    return {"type": "approval_required", "action": action, "details": details}


YES, NO = {"approved": True, "comment": "fine"}, {"approved": False, "comment": "why?"}


async def test_a_node_goes_on_when_it_may(open_graph):
    async def send(state, config: RunnableConfig):
        approval = await approve(config, "send 3 emails", details={"to": ["bob"]})
        return says(f"sent, {approval.comment}")

    talk = await open_graph(graph_of(send))
    assert talk.asked(await talk.say("go")) == [question("send 3 emails", to=["bob"])]
    assert talk.texts(await talk.answer(YES)) == ["sent, fine"]
    await talk.say("again")
    assert talk.texts(await talk.answer(True)) == ["sent, None"]


async def test_a_node_that_is_refused_ends_its_turn_or_catches_it(open_graph):
    def send(state, config: RunnableConfig):
        try:
            approve_sync(config, "send 3 emails")
        except NotApproved as refusal:
            if refusal.comment is None:
                raise
            return says(refusal.comment)

    talk = await open_graph(graph_of(send))
    await talk.say("go")
    assert talk.texts(await talk.answer(NO)) == ["why?"]
    await talk.say("go")
    with pytest.raises(NotApproved):
        await talk.answer(False)


@pytest.mark.parametrize("answer", ["yes", 1, None, [], {"approved": 1}, {"shown": "x"}])
async def test_nothing_but_a_yes_lets_a_node_go_on(open_graph, answer):
    async def send(state, config: RunnableConfig):
        await approve(config, "send 3 emails")

    talk = await open_graph(graph_of(send))
    await talk.say("go")
    with pytest.raises(NotApproved) as refusal:
        await talk.answer(answer)
    assert refusal.value.comment.startswith("Not understood")


async def test_a_yes_is_good_for_what_was_shown_and_for_nothing_else(open_graph):
    numbers = iter([3, 4, 4])

    async def send(state, config: RunnableConfig):
        number = next(numbers)
        await approve(config, "send emails", details={"number": number})
        return says(f"sent {number}")

    talk = await open_graph(graph_of(send))
    assert talk.asked(await talk.say("go")) == [question("send emails", number=3)]
    assert talk.asked(await talk.answer(YES)) == [question("send emails", number=4)]
    assert talk.texts(await talk.answer(YES)) == ["sent 4"]


async def test_an_answer_to_something_else_is_no_yes(open_graph):
    first = iter([True, False, False])

    async def send(state, config: RunnableConfig):
        if next(first):
            interrupt("what is your name?")
        await approve(config, "send 3 emails")
        return says("sent")

    talk = await open_graph(graph_of(send))
    assert talk.asked(await talk.say("go")) == ["what is your name?"]
    assert talk.asked(await talk.answer(YES)) == [question("send 3 emails")]
    assert talk.texts(await talk.answer(YES)) == ["sent"]


async def test_a_node_asks_for_several_approvals_among_its_own_questions(open_graph):
    async def work(state, config: RunnableConfig):
        one = await approve(config, "same")
        name = interrupt("name?")
        two = await approve(config, "same")
        return says(f"{one.comment} {name} {two.comment}")

    talk = await open_graph(graph_of(work))
    assert talk.asked(await talk.say("go")) == [question("same")]
    assert talk.asked(await talk.answer({"approved": True, "comment": "a"})) == ["name?"]
    assert talk.asked(await talk.answer({"approved": "not ours"})) == [question("same")]
    said = talk.texts(await talk.answer({"approved": True, "comment": "c"}))
    assert said == ["a {'approved': 'not ours'} c"]


class Sent(list):
    """What the tools have sent."""


def toolbox(*, with_sends):
    """A model that wants to send to two people at once, and tools that ask before they do."""
    sent = Sent()

    @tool
    async def send(to: str, config: RunnableConfig) -> str:
        """Send an email."""
        await approve(config, f"send an email to {to}", details={"to": to})
        sent.append(to)
        return f"sent to {to}"

    calls = [
        {"name": "send", "args": {"to": to}, "id": to, "type": "tool_call"} for to in ("a", "b")
    ]

    def think(state):
        done = [message for message in state["messages"] if message.type == "tool"]
        return says("done") if done else {"messages": [AIMessage("", tool_calls=calls)]}

    def route(state):
        wanted = state["messages"][-1].tool_calls
        if not wanted:
            return "__end__"
        return [Send("tools", [call]) for call in wanted] if with_sends else "tools"

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode([send]))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", route, ["tools", "__end__"])
    builder.add_edge("tools", "think")
    return builder.compile(), sent


async def test_tools_that_ask_at_once_are_answered_each_for_itself(open_graph):
    graph, sent = toolbox(with_sends=True)
    talk = await open_graph(graph)
    asked = await talk.say("go")
    assert sorted(each["details"]["to"] for each in talk.asked(asked)) == ["a", "b"]
    assert talk.texts(await talk.answer(True, True))[-1] == "done"
    assert sorted(sent) == ["a", "b"]


async def test_a_tool_does_once_what_it_may_while_another_one_still_waits(open_graph):
    graph, sent = toolbox(with_sends=True)
    talk = await open_graph(graph)
    asked = await talk.say("go")
    first = next(each for each in asked[-1].interrupts if each.value["details"] == {"to": "a"})
    talk._runs["t1"].asked = [first]
    left = await talk.answer(True)
    assert talk.asked(left) == [question("send an email to b", to="b")]
    assert sent == ["a"]
    with pytest.raises(NotApproved):
        await talk.answer(False)
    assert sent == ["a"]


async def test_tools_of_one_task_are_asked_for_one_after_the_other(open_graph):
    """LangGraph does such a task again from its beginning, so the first one is done twice."""
    graph, sent = toolbox(with_sends=False)
    talk = await open_graph(graph)
    assert talk.asked(await talk.say("go")) == [question("send an email to a", to="a")]
    assert talk.asked(await talk.answer(True)) == [question("send an email to b", to="b")]
    assert "b" not in sent
    assert talk.texts(await talk.answer(True))[-1] == "done"
    assert set(sent) == {"a", "b"}


async def test_a_task_whose_tools_come_in_another_order_gives_no_yes_away(open_graph):
    orders = iter([(1, 2), (2, 1), (1, 2), (1, 2)])
    done = []

    async def work(state, config: RunnableConfig):
        for number in next(orders):
            await approve(config, f"step {number}")
        done.append("both")
        return says("done")

    talk = await open_graph(graph_of(work))
    assert talk.asked(await talk.say("go")) == [question("step 1")]
    assert talk.asked(await talk.answer(True)) == [question("step 2")]
    assert done == []
    assert talk.texts(await talk.answer(True)) == ["done"]


async def test_an_approval_outlives_the_server(database, talk):
    from agentflow_server.adapters.langgraph import LangGraphAgent

    async def send(state, config: RunnableConfig):
        await approve(config, "send", details={"many": [2**63, 0.1, "ä", None, {"a": True}]})
        return says("sent")

    async def start():
        agent = LangGraphAgent(graph_of(send), name="main", database=database)
        await agent.open()
        return agent

    conversation = talk(await start())
    await conversation.say("go")
    conversation.agent = await start()
    assert conversation.texts(await conversation.answer(True)) == ["sent"]


async def test_a_turn_that_crashed_after_its_yes_asks_nobody_again(open_graph):
    crash = iter([True, False])

    async def send(state, config: RunnableConfig):
        await approve(config, "send")
        if next(crash):
            raise LookupError
        return says("sent")

    talk = await open_graph(graph_of(send))
    await talk.say("go")
    with pytest.raises(LookupError):
        await talk.answer(True)
    assert talk.texts(await talk.retry()) == ["sent"]


async def test_an_answer_to_another_question_reaches_the_graph_as_it_is():
    for asked in (None, "sure?", {"type": "approval_required"}, question("a") | {"more": 1}):
        assert bind_answer(asked, "yes") == "yes"


async def test_langgraph_is_not_imported_for_others():
    script = (
        "import sys, agentflow_server.adapters.approving as a\n"
        "assert not {'langgraph', 'langchain_core', 'tenxgraph'} & set(sys.modules)\n"
    )
    ran = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], check=False)
    assert ran.returncode == 0
