"""Functions as agents, in all the forms people write them."""

import asyncio
import contextvars
import functools
import threading
from contextlib import aclosing
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from pydantic import BaseModel

from agentflow_server.adapters.function import MAX_THREADS, FunctionAgent
from agentflow_server.adapters.threads import AgentThreads
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import CustomEvent, MessageCompleted, TextDelta
from agentflow_server.models import NewMessage


def says(text):
    return MessageCompleted(NewMessage("assistant", text))


async def answers(talk, function):
    return await talk(FunctionAgent(function, name="main")).say("Hello")


def whole(messages, config):
    return f"{messages[-1]['content']} {config['user_id']}"


async def whole_async(messages, config):
    return f"{messages[-1]['content']} {config['user_id']}"


def without_config(messages):
    return f"{messages[-1]['content']} alice"


def with_more_arguments(messages, config, *rest, temperature=0.5, **options):
    assert (rest, options) == ((), {})
    return f"{messages[-1]['content']} {config['user_id']}"


class Instance:
    def __call__(self, messages, config):
        return f"{messages[-1]['content']} {config['user_id']}"


class AsyncInstance:
    async def __call__(self, messages, config):
        return f"{messages[-1]['content']} {config['user_id']}"


def configured(prefix, messages, config):
    return f"{messages[-1]['content']} {config['user_id']}{prefix}"


@pytest.mark.parametrize(
    "function",
    [
        whole,
        whole_async,
        without_config,
        with_more_arguments,
        Instance(),
        AsyncInstance(),
        functools.partial(configured, ""),
        lambda messages, config: whole_async(messages, config=config),
        lambda *arguments: whole(arguments[0], arguments[1]),
    ],
)
async def test_a_function_answers_with_what_it_returns(talk, function):
    assert await answers(talk, function) == [says("Hello alice")]


def words(messages, config):
    yield "Hel"
    yield ""
    yield None
    yield "lo"


async def words_async(messages, config):
    yield "Hel"
    yield "lo"


async def words_later(messages, config):
    return words_async(messages, config)


async def words_in_a_thread(messages, config):
    return words(messages, config)


class Words:
    def __aiter__(self):
        return self

    def __init__(self):
        self.left = ["Hel", "lo"]

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


@pytest.mark.parametrize(
    "function",
    [
        words,
        words_async,
        words_later,
        words_in_a_thread,
        lambda messages, config: words(messages, config=config),
        lambda messages, config: iter(["Hel", "lo"]),
        lambda messages, config: Words(),
        functools.partial(words_async, config={}),
    ],
)
async def test_yielded_text_is_streamed_and_then_completed(talk, function):
    assert await answers(talk, function) == [TextDelta("Hel"), TextDelta("lo"), says("Hello")]


async def test_an_agent_that_yields_nothing_says_nothing(talk):
    assert await answers(talk, lambda messages, config: iter(())) == []


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


async def test_several_messages_come_in_their_order(talk):
    events = await answers(
        talk,
        lambda messages, config: [
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"},
            {"content": [{"type": "text", "text": "two"}], "metadata": {"source": "sum"}},
            "done",
        ],
    )
    assert [event.message for event in events] == [
        NewMessage("assistant", "", {"tool_calls": [CALL]}),
        NewMessage("tool", "2", {"tool_call_id": "c1", "name": "add"}),
        NewMessage("assistant", [{"type": "text", "text": "two"}], {"source": "sum"}),
        NewMessage("assistant", "done"),
    ]


async def test_a_yielded_message_completes_the_text_before_it_only_if_it_is_the_same(talk):
    def agent(messages, config):
        yield "one"
        yield {"role": "assistant", "content": "one", "tool_calls": [CALL]}
        yield "two"
        yield {"role": "tool", "content": "3", "tool_call_id": "c1"}
        yield "three"

    assert await answers(talk, agent) == [
        TextDelta("one"),
        MessageCompleted(NewMessage("assistant", "one", {"tool_calls": [CALL]})),
        TextDelta("two"),
        says("two"),
        MessageCompleted(NewMessage("tool", "3", {"tool_call_id": "c1"})),
        TextDelta("three"),
        says("three"),
    ]


async def test_any_other_yielded_dict_is_an_event_for_the_client(talk):
    def agent(messages, config):
        yield {"progress": 0.5, "thing": object}
        yield "done"

    events = await answers(talk, agent)
    assert events[0] == CustomEvent({"progress": 0.5, "thing": "<type>"})


class OpenAIMessage(BaseModel):
    role: str = "assistant"
    content: str | None = None
    tool_calls: list[dict] | None = None
    refusal: str | None = None


@dataclass
class Plain:
    content: str
    parts: list = field(default_factory=list)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (AIMessage("Hi", name="bot"), NewMessage("assistant", "Hi", {"name": "bot"})),
        (
            AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}]),
            NewMessage("assistant", "", {"tool_calls": [CALL]}),
        ),
        (
            ToolMessage("2", tool_call_id="c1", name="add"),
            NewMessage("tool", "2", {"tool_call_id": "c1", "name": "add"}),
        ),
        (OpenAIMessage(content="Hi"), NewMessage("assistant", "Hi")),
        (OpenAIMessage(tool_calls=[CALL]), NewMessage("assistant", "", {"tool_calls": [CALL]})),
        (Plain("Hi"), NewMessage("assistant", "Hi")),
        (SimpleNamespace(role="system", content="Hi"), NewMessage("system", "Hi")),
    ],
)
async def test_message_objects_of_frameworks_are_understood(talk, value, message):
    assert await answers(talk, lambda messages: value) == [MessageCompleted(message)]


async def test_chunks_of_langchain_models_are_streamed(talk):
    def agent(messages):
        yield AIMessageChunk("Hel")
        yield AIMessageChunk([{"type": "text", "text": "lo"}, {"type": "reasoning", "text": ""}])

    assert await answers(talk, agent) == [TextDelta("Hel"), TextDelta("lo"), says("Hello")]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "returned nothing"),
        (7, "returned int"),
        (b"bytes", "returned bytes"),
        ({"text": "no content"}, 'without "content"'),
        ({"role": "user", "content": "x"}, "found 'user'"),
        ({"role": "developer", "content": "x"}, "found 'developer'"),
        ({"role": ["assistant"], "content": "x"}, "expected a message with the role"),
        (HumanMessage("x"), "found 'user'"),
        ({"role": "assistant", "content": None}, "found NoneType"),
        ({"role": "assistant", "content": 7}, "found int"),
        ({"role": "assistant", "content": ["text"]}, "found list"),
        ({"content": [{"type": object}]}, "expected JSON in 'content'"),
        ({"content": "x", "metadata": {"score": float("nan")}}, "expected JSON in 'metadata'"),
        ({"content": "x", "tool_calls": "add"}, 'a list in "tool_calls"'),
        ({"content": "x", "tool_call_id": 7}, 'a string in "tool_call_id"'),
        ({"content": "x", "name": ["y"]}, 'a string in "name"'),
        ("\ud800", "lone surrogate"),
        ([{"content": "fine"}, None], "returned nothing"),
        (iter(["fine", 7]), "returned int"),
        (iter(["\ud800"]), "lone surrogate"),
    ],
)
async def test_what_no_thread_can_hold_is_the_agents_error(talk, value, complaint):
    with pytest.raises(TypeError, match=complaint):
        await answers(talk, lambda messages: value)


@pytest.mark.parametrize(
    "function",
    [
        lambda: "no arguments",
        lambda messages, config, more: "too many",
        lambda messages, *, tools: "a required keyword",
        max,
    ],
)
def test_a_function_that_cannot_be_called_is_refused(function):
    with pytest.raises(ConfigError, match=r"expected a function of \(messages, config\)"):
        FunctionAgent(function, name="main")


def test_an_optional_second_argument_gets_the_config_only_if_it_asks_for_it():
    assert FunctionAgent(lambda messages, config=None: "", name="main")._takes_config
    assert not FunctionAgent(lambda messages, temperature=0.5: "", name="main")._takes_config


async def test_the_history_is_in_openais_shape_and_without_the_users_metadata(talk):
    seen = []

    async def agent(messages):
        seen.extend(messages)
        return "done"

    driver = talk(FunctionAgent(agent, name="main"))
    parts = [{"type": "text", "text": "Hello"}]
    messages = [
        driver.message(parts, source="phone", tool_calls=[CALL]),
        driver.message("", role="assistant", tool_calls=[CALL], note="internal"),
        driver.message("2", role="tool", tool_call_id="c1", name="add"),
    ]
    async with aclosing(driver.agent.stream(driver.context(), messages)) as events:
        assert [event async for event in events] == [says("done")]
    assert seen == [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"},
    ]


async def test_an_agent_that_changes_its_messages_changes_only_its_copy(talk):
    def agent(messages, config):
        messages[0]["content"][0]["text"] = "changed"
        messages.clear()
        return "done"

    driver = talk(FunctionAgent(agent, name="main"))
    context = driver.context(claims={"roles": ["reader"]})
    question = driver.message([{"type": "text", "text": "Hello"}])
    async with aclosing(driver.agent.stream(context, [question])) as events:
        assert [event async for event in events] == [says("done")]
    assert question.content == [{"type": "text", "text": "Hello"}]


async def test_the_config_is_passed_on_as_it_is(talk, hostile_claims):
    seen = []
    agent = talk(FunctionAgent(lambda messages, config: seen.append(config) or "x", name="main"))
    await agent.say("Hello", claims=hostile_claims, client={"recursion_limit": 9})
    assert seen[0]["user"] == hostile_claims
    assert seen[0]["thread_id"] == "t1"
    assert seen[0]["roles"] == ["reader"]


async def test_many_turns_at_once_never_mix(talk):
    def in_a_thread(messages, config):
        yield f"{messages[-1]['content']}/"
        yield config["roles"][0]

    async def on_the_loop(messages, config):
        for delta in (f"{messages[-1]['content']}/", config["roles"][0]):
            await asyncio.sleep(0)
            yield delta

    for function in (in_a_thread, on_the_loop):
        driver = talk(FunctionAgent(function, name="main"))
        answers = await asyncio.gather(
            *(driver.ask(f"q{n}", f"t{n}", claims={"roles": [f"r{n}"]}) for n in range(60))
        )
        assert answers == [f"q{n}/r{n}" for n in range(60)]


async def test_a_synchronous_agent_does_not_block_the_loop(talk):
    loop = asyncio.get_running_loop()
    reached, released = asyncio.Event(), threading.Event()

    def agent(messages):
        loop.call_soon_threadsafe(reached.set)
        assert released.wait(10)
        return "done"

    turn = asyncio.create_task(answers(talk, agent))
    await asyncio.wait_for(reached.wait(), 10)
    released.set()
    assert await turn == [says("done")]


async def test_deltas_of_a_synchronous_generator_arrive_while_it_works(talk):
    released = threading.Event()

    def agent(messages):
        yield "first"
        assert released.wait(10)
        yield "second"

    async with aclosing(talk(FunctionAgent(agent, name="main")).stream("Hello")) as events:
        assert await anext(events) == TextDelta("first")
        released.set()
        assert await anext(events) == TextDelta("second")


async def test_a_synchronous_generator_stays_a_little_ahead_of_its_reader(talk):
    made = []

    def agent(messages):
        for n in range(1000):
            made.append(n)
            yield str(n)

    async with aclosing(talk(FunctionAgent(agent, name="main")).stream("Hello")) as events:
        for n in range(100):
            assert await anext(events) == TextDelta(str(n))
        assert len(made) < 200


async def test_threads_see_the_context_variables_of_the_run(talk):
    caller = contextvars.ContextVar("caller")
    caller.set("alice")

    def agent(messages):
        yield caller.get()

    assert (await answers(talk, agent))[0] == TextDelta("alice")


async def test_cancelling_stops_a_coroutine(talk, in_background):
    reached, stopped = asyncio.Event(), asyncio.Event()

    async def agent(messages):
        try:
            reached.set()
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with in_background(talk(FunctionAgent(agent, name="main")).stream("Hello")):
        await asyncio.wait_for(reached.wait(), 10)
    assert stopped.is_set()


async def test_leaving_closes_an_asynchronous_generator(talk):
    closed = []

    async def agent(messages):
        try:
            yield "first"
            yield "second"
        finally:
            closed.append(True)

    async with aclosing(talk(FunctionAgent(agent, name="main")).stream("Hello")) as events:
        await anext(events)
    assert closed == [True]


async def test_leaving_closes_a_synchronous_generator_where_it_next_yields(talk):
    loop = asyncio.get_running_loop()
    closed, released = asyncio.Event(), threading.Event()

    def agent(messages):
        try:
            yield "first"
            assert released.wait(10)
            yield "second"
        finally:
            loop.call_soon_threadsafe(closed.set)

    async with aclosing(talk(FunctionAgent(agent, name="main")).stream("Hello")) as events:
        await anext(events)
    released.set()
    await asyncio.wait_for(closed.wait(), 10)


async def test_an_abandoned_thread_keeps_its_place_until_it_ends(talk, in_background):
    """Else an agent that hangs would have a new thread for every run that times out."""
    loop = asyncio.get_running_loop()
    released, running = threading.Event(), asyncio.Semaphore(0)

    def agent(messages):
        loop.call_soon_threadsafe(running.release)
        assert released.wait(10)
        return "done"

    driver = talk(FunctionAgent(agent, name="main"))
    for n in range(MAX_THREADS):
        async with in_background(driver.stream("Hello", f"t{n}")):
            await asyncio.wait_for(running.acquire(), 10)
    waiting = asyncio.create_task(driver.say("Hello", "late"))
    async with in_background(driver.stream("Hello", "cancelled while it waits")):
        await asyncio.sleep(0)
    assert not waiting.done()
    released.set()
    assert await asyncio.wait_for(waiting, 10) == [says("done")]
    assert await driver.say("Hello", "later") == [says("done")]


async def test_what_the_agent_raises_passes_through_after_its_text(talk):
    def agent(messages):
        yield "first"
        raise LookupError("the agent's own")

    async with aclosing(talk(FunctionAgent(agent, name="main")).stream("Hello")) as events:
        assert await anext(events) == TextDelta("first")
        with pytest.raises(LookupError, match="the agent's own"):
            await anext(events)


async def test_a_turn_cancelled_at_any_moment_gives_its_place_back():
    threads = AgentThreads(1)
    for steps in range(8):
        turn = asyncio.create_task(threads.run(lambda: None, "r1"))
        for _ in range(steps):
            await asyncio.sleep(0)
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)
        assert await asyncio.wait_for(threads.run(lambda: "free", "r2"), 10) == "free"
