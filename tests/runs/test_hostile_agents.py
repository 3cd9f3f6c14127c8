"""Whatever an agent does, its run ends, its thread stays usable, and the server goes on."""

import asyncio
import time

import pytest

from agentflow_server.errors import NotFound, RunFailed
from agentflow_server.interfaces import Agent, CustomEvent, MessageCompleted
from agentflow_server.models import NewMessage


async def cancelled_child():
    task = asyncio.create_task(asyncio.sleep(10))
    task.cancel()
    await task


async def raises(error):
    raise error


FAILURES = {
    "SystemExit": lambda: raises(SystemExit(3)),
    "KeyboardInterrupt": lambda: raises(KeyboardInterrupt()),
    "GeneratorExit": lambda: raises(GeneratorExit()),
    "BaseException": lambda: raises(BaseException("odd")),
    "BaseExceptionGroup": lambda: raises(BaseExceptionGroup("odd", [SystemExit()])),
    "a cancelled child": cancelled_child,
    "CancelledError": lambda: raises(asyncio.CancelledError()),
    "an error of ours": lambda: raises(NotFound("not the store's")),
    "StopAsyncIteration": lambda: raises(StopAsyncIteration()),
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_whatever_an_agent_raises_its_run_ends_and_the_next_one_follows(
    open_house, request_for, alice, kind
):
    async def agent(messages, config):
        if messages[-1]["content"] == "fail":
            await FAILURES[kind]()
        return "fine"

    async with open_house(agent) as house:
        thread_id = await house.thread()
        first = asyncio.create_task(house.runner.send(alice, thread_id, request_for("fail")))
        await asyncio.sleep(0)
        second = asyncio.create_task(house.runner.send(alice, thread_id, request_for("go")))
        with pytest.raises(RunFailed) as failure:
            await asyncio.wait_for(first, 5)
        assert failure.value.run_code == "agent_failed"
        assert (await asyncio.wait_for(second, 5)).messages[-1]["content"] == "fine"


async def test_a_failed_task_of_a_task_group_is_the_agents_failure(open_house, request_for, alice):
    async def fail():
        await asyncio.sleep(0)
        raise LookupError

    async def agent(messages, config):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async with open_house(agent) as house:
        thread_id = await house.thread()
        for _ in range(2):
            with pytest.raises(RunFailed) as failure:
                await house.runner.send(alice, thread_id, request_for("go"))
            assert failure.value.run_code == "agent_failed"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
async def test_a_synchronous_agent_that_wants_to_end_the_process_ends_its_turn(
    open_house, request_for, alice, error
):
    def agent(messages, config):
        raise error

    async with open_house(agent) as house:
        with pytest.raises(RunFailed):
            await house.runner.send(alice, await house.thread(), request_for("x"))


class Odd(Agent):
    kind = "test"

    def __init__(self, *events):
        self.events = events

    async def stream(self, context, messages):
        for event in self.events:
            yield event


@pytest.mark.parametrize(
    "event",
    [
        CustomEvent({"x": "\ud800"}),
        MessageCompleted(NewMessage("assistant", "\ud800")),
        MessageCompleted(NewMessage("assistant", "x", {"y": object()})),
        MessageCompleted(NewMessage("nobody", "x")),  # type: ignore[arg-type]
    ],
)
async def test_what_cannot_be_stored_fails_the_turn_and_nothing_else(
    open_house, request_for, alice, event
):
    async with open_house(Odd(CustomEvent("good"), event)) as house:
        thread_id = await house.thread()
        with pytest.raises(RunFailed) as failure:
            await asyncio.wait_for(house.runner.send(alice, thread_id, request_for("x")), 5)
        assert failure.value.run_code == "agent_failed"
        run = await house.run(thread_id, failure.value.details["run_id"])
        assert run.status == "error"
        events = await house.events(run)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert events[-1].type == "run.failed"


async def test_events_survive_a_busy_event_loop(open_house, request_for, alice):
    """Work that holds the loop for longer than a batch waits makes flushes overlap."""

    async def agent(messages, config):
        for n in range(300):
            yield f"{n} "
            await asyncio.sleep(0)

    async def hog(stop):
        while not stop.is_set():
            time.sleep(0.025)
            await asyncio.sleep(0)

    async with open_house(agent) as house:
        thread_id = await house.thread()
        stop = asyncio.Event()
        busy = asyncio.create_task(hog(stop))
        turn = await house.runner.send(alice, thread_id, request_for("go"))
        stop.set()
        await busy
        run = await house.run(thread_id, turn.run_id)
        events = await asyncio.wait_for(house.events(run), 5)
        assert [event.seq for event in events] == list(range(1, 304))


async def test_an_agent_that_does_not_stop_is_left_alone_and_its_run_is_marked(
    open_house, request_for, alice, monkeypatch
):
    monkeypatch.setattr("agentflow_server.engines.embedded.UNWILLING_SECONDS", 0.1)
    release = asyncio.Event()

    async def agent(messages, config):
        yield "begun"
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with open_house(agent, grace=0.01) as house:
        thread_id = await house.thread()
        started = await house.runner.start(alice, thread_id, request_for("go"))
        async for event in house.runner.follow("alice", started.run):
            if event.type == "message.delta":
                break
    release.set()
    async with open_house(lambda messages, config: "back") as house:
        run = await house.run(thread_id, started.run.run_id)
        assert (run.status, run.error.code) == ("error", "server_stopped")
        turn = await house.runner.send(alice, thread_id, request_for("again"))
        assert turn.messages[0]["content"] == "back"


async def test_a_caller_who_goes_away_at_any_moment_leaves_no_run_behind(
    open_house, request_for, alice
):
    async with open_house(lambda messages, config: "x") as house:
        thread_id = await house.thread()
        for n in range(40):
            caller = asyncio.create_task(house.runner.start(alice, thread_id, request_for("x")))
            await asyncio.sleep(0.0001 * n)
            caller.cancel()
        await house.runner.send(alice, thread_id, request_for("last"))
        runs = (await house.store.list_runs("alice", thread_id, limit=100)).data
        assert {run.status for run in runs} == {"success"}


class Forgetful(Agent):
    kind = "test"

    async def stream(self, context, messages):
        yield MessageCompleted(NewMessage("assistant", "x"))

    async def forget(self, thread_id):
        raise RuntimeError("the checkpointer is down")


async def test_a_framework_that_cannot_forget_prevents_neither_deletion_nor_start(
    open_house, request_for, alice
):
    async with open_house(Forgetful()) as house:
        thread_id = await house.thread()
        await house.runner.send(alice, thread_id, request_for("x"))
        await house.runner.delete_thread(alice, thread_id)
        with pytest.raises(NotFound):
            await house.store.get_thread("alice", thread_id)
        await house.runner.finish_deletions()
        assert await house.store.list_hidden_threads() == [(thread_id, "agent")]


async def test_a_run_that_has_ended_has_nothing_more_to_tell(open_house, request_for, alice):
    async with open_house(lambda messages, config: "x") as house:
        thread_id = await house.thread()
        turn = await house.runner.send(alice, thread_id, request_for("x"))
        run = await house.run(thread_id, turn.run_id)
        assert await asyncio.wait_for(house.events(run, after=3), 5) == []
        assert await asyncio.wait_for(house.events(run, after=99), 5) == []


async def test_whoever_follows_a_run_hears_of_its_end_even_if_the_bus_is_silent(
    open_house, request_for, alice, monkeypatch
):
    monkeypatch.setattr("agentflow_server.runs.following.HEARTBEAT_SECONDS", 0.02)
    hold = asyncio.Event()

    async def agent(messages, config):
        await hold.wait()
        return "x"

    async with open_house(agent) as house:
        thread_id = await house.thread()
        started = await house.runner.start(alice, thread_id, request_for("x"))
        house.bus.publish = lambda events: None
        following = asyncio.create_task(house.events(started.run))
        late = asyncio.create_task(house.events(started.run, after=50))
        hold.set()
        events = await asyncio.wait_for(following, 5)
        assert events[-1].type == "run.completed"
        assert await asyncio.wait_for(late, 5) == []
