"""Graphs that ask a human, crash, or are taken back."""

import asyncio
import operator
from contextlib import aclosing
from dataclasses import replace
from datetime import date
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from langgraph.types import interrupt
from pydantic import BaseModel

from agentflow_server.adapters.langgraph import LangGraphAgent
from agentflow_server.interfaces import AgentAsked


def graph_of(*nodes, state=MessagesState, **options):
    """The nodes, one after the other."""
    builder = StateGraph(state)
    builder.add_sequence([(node.__name__, node) for node in nodes])
    builder.add_edge(START, nodes[0].__name__)
    return builder.compile(**options)


def side_by_side(*nodes, state=MessagesState, **options):
    builder = StateGraph(state)
    for node in nodes:
        builder.add_node(node)
        builder.add_edge(START, node.__name__)
    return builder.compile(**options)


def says(text):
    return {"messages": [AIMessage(text)]}


async def count(state):
    return says(f"{len(state['messages'])}: {state['messages'][-1].content}")


async def confirm(state):
    return says(f"said {interrupt({'about': state['messages'][-1].content})}")


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver()])
@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_what_was_said_before_a_question_is_not_said_again(
    open_graph, checkpointer, durability
):
    graph = graph_of(count, confirm, checkpointer=checkpointer)
    talk = await open_graph(graph, durability=durability)
    await talk.agent.forget("t1")
    asked = await talk.say("Hi")
    assert talk.texts(asked) == ["1: Hi"]
    assert talk.asked(asked) == [{"about": "1: Hi"}]
    answered = await talk.answer({"sure": True})
    assert talk.texts(answered) == ["said {'sure': True}"]
    assert talk.asked(answered) == []


async def test_a_false_and_an_empty_answer_are_answers(open_graph):
    talk = await open_graph(graph_of(confirm))
    for value in (False, None, "", 0, [], {}):
        await talk.say("Hi")
        assert talk.texts(await talk.answer(value)) == [f"said {value}"]


async def test_a_node_may_ask_twice(open_graph):
    async def ask_twice(state):
        return says(f"{interrupt('first')} and {interrupt('second')}")

    talk = await open_graph(graph_of(ask_twice))
    first = await talk.say("Hi")
    second = await talk.answer("one")
    assert [*talk.asked(first), *talk.asked(second)] == ["first", "second"]
    assert first[-1].interrupts[0].interrupt_id != second[-1].interrupts[0].interrupt_id
    assert talk.texts(await talk.answer("two")) == ["one and two"]


async def left(state):
    return says(f"left {interrupt('left?')}")


async def right(state):
    return says(f"right {interrupt('right?')}")


async def silent(state):
    return says("done beside them")


async def test_nodes_that_ask_at_once_are_all_answered_at_once(open_graph):
    talk = await open_graph(side_by_side(left, right))
    assert sorted(talk.asked(await talk.say("Hi"))) == ["left?", "right?"]
    said = talk.texts(await talk.answer("one", "two"))
    assert {text.split()[0] for text in said} == {"left", "right"}
    assert {text.split()[1] for text in said} == {"one", "two"}


async def test_what_is_not_answered_is_still_asked(open_graph):
    talk = await open_graph(side_by_side(left, right))
    events = await talk.say("Hi")
    question = next(asked for asked in events[-1].interrupts if asked.value == "right?")
    talk._runs["t1"].asked = [question]
    rest = await talk.answer("two")
    assert (talk.texts(rest), talk.asked(rest)) == (["right two"], ["left?"])
    assert talk.texts(await talk.answer("one")) == ["left one"]


async def test_what_was_said_beside_a_question_is_said_once(open_graph):
    talk = await open_graph(side_by_side(silent, left))
    assert talk.texts(await talk.say("Hi")) == ["done beside them"]
    assert talk.texts(await talk.answer("one")) == ["left one"]


class ListState(TypedDict):
    messages: Annotated[list[Any], operator.add]


async def test_messages_without_ids_are_not_said_again(open_graph):
    async def first(state):
        return {"messages": [{"role": "assistant", "content": "first"}]}

    async def second(state):
        return {"messages": [{"role": "assistant", "content": interrupt("sure?")}]}

    talk = await open_graph(graph_of(first, second, state=ListState))
    assert talk.texts(await talk.say("Hi")) == ["first"]
    assert talk.texts(await talk.answer("second")) == ["second"]


async def test_a_question_of_any_kind_is_json(open_graph):
    async def ask(state):
        return says(interrupt({"when": date(2020, 2, 29), "how much": float("nan")}))

    talk = await open_graph(graph_of(ask))
    assert talk.asked(await talk.say("Hi")) == [{"when": "2020-02-29", "how much": None}]


class Decision(BaseModel):
    approved: bool


async def test_an_answer_that_does_not_fit_is_asked_for_again(open_graph):
    async def ask(state):
        return says(f"approved: {interrupt('sure?', response_schema=Decision).approved}")

    talk = await open_graph(graph_of(ask))
    await talk.say("Hi")
    assert talk.asked(await talk.answer({"wrong": 1})) == ["sure?"]
    assert talk.texts(await talk.answer({"approved": True})) == ["approved: True"]


async def test_a_new_message_starts_another_turn(open_graph):
    talk = await open_graph(graph_of(count, confirm))
    await talk.say("one")
    asked = await talk.say("two")
    assert talk.asked(asked) == [{"about": "3: two"}]
    assert talk.texts(await talk.answer("yes")) == ["said yes"]


async def second(state):
    return says("second")


async def third(state):
    return says("third")


@pytest.mark.parametrize(
    ("where", "nodes", "before", "after"),
    [
        ("interrupt_before", ["second"], ["1: Hi"], ["second", "third"]),
        ("interrupt_after", ["second"], ["1: Hi", "second"], ["third"]),
        ("interrupt_before", ["count"], [], ["1: Hi", "second", "third"]),
    ],
)
async def test_a_graph_that_stops_at_a_node_waits_for_leave(
    open_graph, where, nodes, before, after
):
    talk = await open_graph(graph_of(count, second, third, **{where: nodes}))
    stopped = await talk.say("Hi")
    assert talk.texts(stopped) == before
    assert talk.asked(stopped) == [None]
    following = after[0].replace("1: Hi", "count")
    assert stopped[-1].interrupts[0].interrupt_id.endswith(f":{following}")
    assert talk.texts(await talk.answer(None)) == after


async def test_every_stop_of_a_graph_that_stops_everywhere_is_another_one(open_graph):
    talk = await open_graph(graph_of(count, second, third, interrupt_before="*"))
    stops = [await talk.say("Hi"), await talk.answer(None), await talk.answer(None)]
    names = [stop[-1].interrupts[0].interrupt_id for stop in stops]
    assert [name.partition(":")[2] for name in names] == ["count", "second", "third"]
    assert len(set(names)) == 3
    assert talk.texts(await talk.answer(None)) == ["third"]


@pytest.mark.parametrize(
    ("inner", "asked", "said"),
    [
        (graph_of(confirm), {"about": "1: Hi"}, "said yes"),
        (graph_of(third, interrupt_before=["third"]), None, "third"),
    ],
)
async def test_a_graph_within_a_graph_may_ask(open_graph, inner, asked, said):
    builder = StateGraph(MessagesState)
    builder.add_sequence([count, ("inner", inner)])
    builder.add_edge(START, "count")
    talk = await open_graph(builder.compile())
    assert talk.asked(await talk.say("Hi")) == [asked]
    assert talk.texts(await talk.answer("yes")) == [said]


async def test_a_graph_without_memory_cannot_wait(open_graph):
    talk = await open_graph(graph_of(confirm, checkpointer=False))
    with pytest.raises(RuntimeError, match="has no checkpointer"):
        await talk.say("Hi")


async def test_a_question_outlives_the_server(open_database, talk):
    async with open_database() as store:
        agent = LangGraphAgent(graph_of(count, confirm), name="main", database=store)
        await agent.open()
        before = talk(agent)
        await before.say("Hi")
    async with open_database() as store:
        agent = LangGraphAgent(graph_of(count, confirm), name="main", database=store)
        await agent.open()
        before.agent = agent
        assert before.texts(await before.answer("yes")) == ["said yes"]


async def test_who_answers_what_is_no_longer_asked_is_told(open_graph):
    talk = await open_graph(graph_of(confirm))
    await talk.say("Hi")
    await talk.agent.forget("t1")
    with pytest.raises(RuntimeError, match="no longer waits"):
        await talk.answer("yes")


# After a crash


class Crash(BaseException):
    pass


class Plan:
    """Which nodes crash, and how often each has run."""

    def __init__(self):
        self.crashing = set()
        self.ran = []

    def node(self, name, text=None, asks=False):
        async def run(state):
            self.ran.append(name)
            answer = interrupt(f"{name}?") if asks else ""
            if name in self.crashing:
                self.crashing.discard(name)
                raise Crash
            return says(text or f"{name}{answer and ' '}{answer}")

        run.__name__ = name
        return run


@pytest.fixture
def plan():
    return Plan()


async def crash(turn):
    with pytest.raises(Crash):
        await turn


async def test_a_run_goes_on_from_its_last_checkpoint(open_graph, plan):
    talk = await open_graph(graph_of(plan.node("a"), plan.node("b"), plan.node("c")))
    assert talk.agent.resumable
    plan.crashing = {"b"}
    await crash(talk.say("Hi"))
    assert talk.texts(await talk.retry()) == ["a", "b", "c"]
    assert plan.ran == ["a", "b", "b", "c"]


async def test_a_run_that_had_finished_says_everything_again(open_graph, plan):
    talk = await open_graph(graph_of(plan.node("a"), plan.node("b")))
    await talk.say("one")
    await talk.say("two")
    assert talk.texts(await talk.retry()) == ["a", "b"]
    assert plan.ran == ["a", "b"] * 2


async def test_a_run_that_had_not_begun_begins(open_graph, plan):
    talk = await open_graph(graph_of(plan.node("a")))
    await talk.say("one")
    await talk.stream("two").aclose()
    assert talk.texts(await talk.retry()) == ["a"]
    state = await talk.agent.get_state("t1")
    assert [message["content"] for message in state["values"]["messages"]] == [
        *("one", "a", "two", "a"),
    ]


@pytest.mark.parametrize(
    ("settings", "options"),
    [({"durability": "exit"}, {}), ({}, {"checkpointer": InMemorySaver()})],
)
async def test_a_graph_that_saves_too_late_is_not_resumable(open_graph, settings, options, plan):
    talk = await open_graph(graph_of(plan.node("a"), **options), **settings)
    assert not talk.agent.resumable


async def test_an_answer_survives_a_crash_and_counts_once(open_graph, plan):
    nodes = [plan.node("a"), plan.node("b", asks=True), plan.node("c"), plan.node("d", asks=True)]
    talk = await open_graph(graph_of(*nodes))
    await talk.say("Hi")
    for name in ("b", "c"):
        plan.crashing = {name}
        await crash(talk.answer("yes") if name == "b" else talk.retry())
    events = await talk.retry()
    assert talk.texts(events) == ["b yes", "c"]
    assert talk.asked(events) == ["d?"]
    assert talk.texts(await talk.answer("no")) == ["d no"]


async def test_a_question_that_was_asked_before_the_crash_is_asked_again(open_graph, plan):
    talk = await open_graph(graph_of(plan.node("a"), plan.node("b", asks=True)))
    first = await talk.say("Hi")
    again = await talk.retry()
    assert talk.texts(again) == ["a"]
    assert again[-1] == first[-1]
    assert talk.texts(await talk.answer("yes")) == ["b yes"]


@pytest.mark.parametrize(
    "options",
    [{"interrupt_before": ["b"]}, {"interrupt_after": ["a"]}, {"interrupt_before": "*"}],
)
async def test_a_crash_is_no_leave_to_go_on(open_graph, plan, options):
    talk = await open_graph(graph_of(plan.node("a"), plan.node("b"), **options))
    stopped = await talk.say("Hi")
    if options == {"interrupt_before": "*"}:
        stopped = await talk.answer(None)
    again = await talk.retry()
    assert isinstance(again[-1], AgentAsked)
    assert again[-1] == stopped[-1]
    assert plan.ran == ["a"]
    plan.crashing = {"b"}
    await crash(talk.answer(None))
    assert talk.texts(await talk.retry()) == ["b"]


async def test_a_crash_far_from_a_breakpoint_asks_nothing(open_graph, plan):
    nodes = [plan.node(name) for name in "abc"]
    talk = await open_graph(graph_of(*nodes, interrupt_after=["c"]))
    plan.crashing = {"b"}
    await crash(talk.say("Hi"))
    events = await talk.retry()
    assert talk.texts(events) == ["a", "b", "c"]


# Undoing


class DeltaState(TypedDict):
    messages: Annotated[list[Any], DeltaChannel(_messages_delta_reducer)]


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver])
@pytest.mark.parametrize("durability", ["sync", "exit"])
@pytest.mark.parametrize("state", [MessagesState, DeltaState])
async def test_an_undone_run_is_forgotten(open_graph, checkpointer, durability, state):
    graph = graph_of(count, state=state, checkpointer=checkpointer and checkpointer())
    talk = await open_graph(graph, durability=durability)
    await talk.say("one")
    await talk.say("two")
    for _ in range(2):
        await talk.undo()
    assert await talk.ask("three") == "3: three"
    assert await talk.ask("four") == "5: four"
    await talk.undo()
    assert await talk.ask("five") == "5: five"


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver])
async def test_undoing_the_only_run_leaves_nothing(open_graph, checkpointer):
    talk = await open_graph(graph_of(count, checkpointer=checkpointer and checkpointer()))
    await talk.say("one")
    await talk.undo()
    assert (await talk.agent.get_state("t1"))["checkpoint_id"] is None
    assert await talk.ask("two") == "1: two"


async def test_an_undone_run_leaves_the_older_ones_question(open_graph):
    talk = await open_graph(graph_of(count, confirm))
    await talk.say("one")
    run = replace(talk._runs["t1"])
    await talk.say("two")
    await talk.undo()
    talk._runs["t1"] = run
    assert talk.texts(await talk.answer("yes")) == ["said yes"]


async def test_a_run_stopped_in_the_middle_can_be_undone(open_graph, database, saved_rows):
    started = asyncio.Event()

    async def slow(state):
        if state["messages"][0].content == "two" or len(state["messages"]) > 2:
            started.set()
            await asyncio.Event().wait()
        return says("slow")

    talk = await open_graph(graph_of(count, slow))
    await talk.say("one")
    before = await saved_rows(database)
    turn = asyncio.create_task(talk.say("two"))
    await started.wait()
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    assert await saved_rows(database) != before
    await talk.undo()
    assert await saved_rows(database) == before
    state = await talk.agent.get_state("t1")
    assert [m["content"] for m in state["values"]["messages"]] == ["one", "1: one", "slow"]


async def test_a_graph_without_memory_has_nothing_to_undo(open_graph):
    talk = await open_graph(graph_of(count, checkpointer=False))
    await talk.say("one")
    await talk.undo()
    assert await talk.ask("two") == "3: two"


async def test_a_reader_that_leaves_a_waiting_turn_breaks_nothing(open_graph):
    talk = await open_graph(graph_of(count, confirm))
    async with aclosing(talk.stream("Hi")) as events:
        await anext(events)
    assert talk.asked(await talk.say("again")) != []
