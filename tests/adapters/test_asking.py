"""Plain functions that ask a human, and threads that outlive their run."""

import asyncio
import copy
import threading
from contextlib import suppress

import pytest

import agentflow_server
from agentflow_server import ask, ask_sync
from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.adapters.threads import AgentThreads
from agentflow_server.interfaces import AgentAsked


@pytest.fixture
def talk_to(talk):
    return lambda function: talk(FunctionAgent(function, name="main"))


async def test_answers_belong_to_questions_by_their_order(talk_to):
    ran = []

    async def agent(messages, config):
        ran.append(messages[-1]["content"])
        size = await ask(config, "which size?")
        colour = await ask(config, "which colour?")
        return f"{size} {colour}"

    talk = talk_to(agent)
    assert talk.asked(await talk.say("shirt")) == ["which size?"]
    assert talk.asked(await talk.answer("L")) == ["which colour?"]
    assert talk.texts(await talk.answer("red")) == ["L red"]
    assert ran == ["shirt"] * 3


async def test_the_same_question_twice_is_two_questions(talk_to):
    async def agent(messages, config):
        return f"{await ask(config, 'more?')} {await ask(config, 'more?')}"

    talk = talk_to(agent)
    first = await talk.say("tea")
    second = await talk.answer("yes")
    assert first[-1].interrupts[0].interrupt_id != second[-1].interrupts[0].interrupt_id
    assert talk.texts(await talk.answer("no")) == ["yes no"]


async def test_nobody_agrees_to_what_he_was_not_asked(talk_to):
    drafts = iter(["Dear Bob", "Dear Alice", "Dear Alice"])

    async def agent(messages, config):
        draft = next(drafts)
        return draft if await ask(config, {"send": draft}) else "not sent"

    talk = talk_to(agent)
    assert talk.asked(await talk.say("write")) == [{"send": "Dear Bob"}]
    assert talk.asked(await talk.answer(True)) == [{"send": "Dear Alice"}]
    assert talk.texts(await talk.answer(True)) == ["Dear Alice"]


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
async def test_an_empty_answer_is_an_answer(talk_to, value):
    async def agent(messages, config):
        return repr(await ask(config, None))

    talk = talk_to(agent)
    assert talk.asked(await talk.say("Hi")) == [None]
    assert talk.texts(await talk.answer(value)) == [repr(value)]


async def test_what_was_yielded_before_a_question_is_yielded_again(talk_to):
    def agent(messages, config):
        yield "Let me see. "
        yield ask_sync(config, "how many?")

    talk = talk_to(agent)
    asked = await talk.say("Hi")
    assert talk.text(asked) == ["Let me see. "]
    assert talk.texts(asked) == ["Let me see. "]
    assert isinstance(asked[-1], AgentAsked)
    assert talk.texts(await talk.answer("three")) == ["Let me see. three"]


async def test_an_author_who_catches_his_errors_does_not_catch_a_question(talk_to):
    async def agent(messages, config):
        try:
            return await ask(config, "sure?")
        except Exception:  # noqa: BLE001 - what authors write
            return "caught"

    talk = talk_to(agent)
    assert talk.asked(await talk.say("Hi")) == ["sure?"]


async def test_an_author_who_catches_everything_still_asks(talk_to):
    def agent(messages, config):
        with suppress(BaseException):
            ask_sync(config, "sure?")
        with suppress(BaseException):
            ask_sync(config, "really?")
        yield "caught"

    talk = talk_to(agent)
    assert talk.asked(await talk.say("Hi")) == ["sure?"]


async def test_coroutines_that_ask_at_once_are_answered_one_after_the_other(talk_to):
    async def agent(messages, config):
        answers = await asyncio.gather(*(ask(config, f"{n}?") for n in range(3)))
        return " ".join(answers)

    talk = talk_to(agent)
    asked = [*talk.asked(await talk.say("Hi"))]
    asked += talk.asked(await talk.answer("a"))
    asked += talk.asked(await talk.answer("b"))
    assert asked == ["0?", "1?", "2?"]
    assert talk.texts(await talk.answer("c")) == ["a b c"]


async def test_a_question_comes_out_of_a_task_group(talk_to):
    async def agent(messages, config):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(config, f"{n}?")) for n in range(2)]
        return " ".join(task.result() for task in tasks)

    talk = talk_to(agent)
    assert talk.asked(await talk.say("Hi")) == ["0?"]
    assert talk.asked(await talk.answer("a")) == ["1?"]
    assert talk.texts(await talk.answer("b")) == ["a b"]


async def test_an_error_beside_a_question_is_an_error(talk_to):
    async def fail():
        raise LookupError("the agent's own")

    async def agent(messages, config):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(ask(config, "sure?"))

    with pytest.raises(BaseExceptionGroup) as failure:
        await talk_to(agent).say("Hi")
    assert failure.group_contains(LookupError, match="the agent's own")


@pytest.mark.parametrize("change", [dict, lambda config: {**config}, lambda config: config.copy()])
async def test_a_copy_of_the_config_cannot_ask(talk_to, change):
    async def agent(messages, config):
        return await ask(change(config), "sure?")

    with pytest.raises(TypeError, match="expected the config that the agent was given, found dict"):
        await talk_to(agent).say("Hi")


async def test_a_deep_copy_of_the_config_asks_the_same_questions(talk_to):
    async def agent(messages, config):
        twin = copy.deepcopy(config)
        return f"{await ask(config, 'one?')} {await ask(twin, 'two?')}"

    talk = talk_to(agent)
    await talk.say("Hi")
    assert talk.asked(await talk.answer("a")) == ["two?"]
    assert talk.texts(await talk.answer("b")) == ["a b"]


@pytest.mark.parametrize("question", [object(), {1: {2}}, float("nan"), "\ud800"])
async def test_a_question_that_is_not_json_is_the_agents_error(talk_to, question):
    def agent(messages, config):
        return ask_sync(config, question)

    with pytest.raises(TypeError):
        await talk_to(agent).say("Hi")


async def test_the_package_shows_how_to_ask():
    assert {"ask", "ask_sync"} <= set(agentflow_server.__all__)


# Threads


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_stopped_run_is_settled_when_its_thread_has_ended(talk_to, streaming):
    loop = asyncio.get_running_loop()
    started, release = asyncio.Event(), threading.Event()
    ended = []

    def work(messages):
        loop.call_soon_threadsafe(started.set)
        release.wait(10)
        ended.append(True)
        return "done"

    def work_piecewise(messages):
        yield work(messages)

    talk = talk_to(work_piecewise if streaming else work)
    turn = asyncio.create_task(talk.say("Hi"))
    await asyncio.wait_for(started.wait(), 10)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    settling = asyncio.create_task(talk.agent.settle(talk.run_id("t1")))
    await asyncio.wait_for(talk.agent.settle("another run"), 10)
    assert not settling.done()
    release.set()
    await asyncio.wait_for(settling, 10)
    assert ended == [True]


async def test_a_call_that_never_began_keeps_nobody_waiting():
    threads, release = AgentThreads(1), threading.Event()
    first = asyncio.create_task(threads.run(lambda: release.wait(10), "r1"))
    await asyncio.sleep(0)
    second = asyncio.create_task(threads.run(lambda: None, "r2"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await asyncio.wait_for(threads.settle("r2"), 10)
    release.set()
    assert await first
