"""From an accepted message to its stored end, without the web."""

import asyncio
import sqlite3

import pytest
from uuid_utils import uuid7

from agentflow_server.errors import RunFailed, StoreUnavailable
from agentflow_server.models import NewRun


async def test_deltas_are_stored_in_order_and_read_without_gap(open_house, request_for, alice):
    async def agent(messages, config):
        for n in range(100):
            yield f"{n} "
            if n % 10 == 0:
                await asyncio.sleep(0.003)

    async with open_house(agent) as house:
        thread_id = await house.thread()
        started = await house.runner.start(alice, thread_id, request_for("go"))
        live = await house.events(started.run)
        assert [event.seq for event in live] == list(range(1, 104))
        text = "".join(e.data["delta"] for e in live if e.type == "message.delta")
        assert text == "".join(f"{n} " for n in range(100))
        assert await house.events(started.run) == live
        assert await house.events(started.run, after=50) == live[50:]


async def test_the_first_delta_does_not_wait_for_a_batch(open_house, request_for, alice):
    hold = asyncio.Event()

    async def agent(messages, config):
        yield "first"
        await asyncio.wait_for(hold.wait(), 5)
        yield "second"

    async with open_house(agent) as house:
        started = await house.runner.start(alice, await house.thread(), request_for("go"))
        seen = []
        async for event in house.runner.follow("alice", started.run):
            seen.append(event.type)
            if event.type == "message.delta":
                hold.set()
        assert seen == ["run.started", "message.delta", "message.delta", "message.completed",
                        "run.completed"]  # fmt: skip


async def test_a_reader_that_falls_behind_catches_up_from_the_store(open_house, request_for, alice):
    async def agent(messages, config):
        for n in range(700):
            yield {"n": n}
            if n % 50 == 0:
                await asyncio.sleep(0)

    async with open_house(agent) as house:
        started = await house.runner.start(alice, await house.thread(), request_for("go"))
        seen = []
        async for event in house.runner.follow("alice", started.run):
            seen.append(event.seq)
            if event.seq == 1:
                while (
                    await house.store.get_run("alice", started.run.thread_id, event.run_id)
                ).ended_at is None:
                    pass
        assert seen == list(range(1, 703))


async def test_what_tools_did_is_told_even_if_json_cannot_say_it(open_house, request_for, alice):
    from agentflow_server.interfaces import Agent, MessageCompleted, ToolCompleted, ToolStarted
    from agentflow_server.models import NewMessage

    class Tooling(Agent):
        kind = "test"

        async def stream(self, context, messages):
            yield ToolStarted("clock", "c1", {"zone": "UTC"})
            yield ToolCompleted("clock", "c1", object())
            yield MessageCompleted(NewMessage("tool", "12:00", {"tool_call_id": "c1"}))
            yield MessageCompleted(NewMessage("assistant", "noon"))

    async with open_house(Tooling()) as house:
        thread_id = await house.thread()
        turn = await house.runner.send(alice, thread_id, request_for("time?"))
        assert [message["role"] for message in turn.messages] == ["tool", "assistant"]
        events = await house.events(await house.run(thread_id, turn.run_id))
        assert events[1].data == {"name": "clock", "call_id": "c1", "arguments": {"zone": "UTC"}}
        assert events[2].data["result"] == "<object>"


async def test_a_failed_turn_leaves_its_question_but_no_half_answers(
    open_house, request_for, alice
):
    async def agent(messages, config):
        if messages[-1]["content"] == "fail":
            yield {"role": "tool", "content": "dangling", "tool_call_id": "1"}
            raise ValueError
        yield str(len(messages))

    async with open_house(agent) as house:
        thread_id = await house.thread()
        with pytest.raises(RunFailed) as failure:
            await house.runner.send(alice, thread_id, request_for("fail"))
        assert failure.value.run_code == "agent_failed"
        turn = await house.runner.send(alice, thread_id, request_for("go"))
        assert turn.messages[0]["content"] == "2"
        page = await house.store.list_messages("alice", thread_id, limit=10)
        assert [message.content for message in page.data] == ["fail", "go", "2"]


async def test_an_agent_that_is_no_longer_served_ends_the_run(open_house, request_for, alice):
    async with open_house(lambda messages, config: "x") as house:
        thread_id = await house.thread()
        new = NewRun(str(uuid7()), thread_id, "gone", str(uuid7()), "x", {}, {}, {})
        started = await house.store.start_run("alice", new)
        assert await house.worker.execute(started.active) is None
        run = await house.store.get_run("alice", thread_id, started.run.run_id)
        assert (run.status, run.error.code) == ("error", "agent_unknown")


async def test_runs_of_a_dead_process_are_errors_and_waiting_ones_go_on(
    open_house, request_for, alice
):
    async with open_house(lambda messages, config: "x") as house:
        thread_id = await house.thread()
        ids = []
        for text in ("running", "waiting 1", "waiting 2"):
            new = NewRun(str(uuid7()), thread_id, "agent", str(uuid7()), text, {}, {}, {})
            ids.append((await house.store.start_run("alice", new)).run.run_id)
    async with open_house(lambda messages, config: messages[-1]["content"] + "!") as house:
        last = await house.events(await house.run(thread_id, ids[2]))
        assert last[-1].type == "run.completed"
        dead = await house.events(await house.run(thread_id, ids[0]))
        assert [event.type for event in dead] == ["run.started", "run.failed"]
        assert dead[-1].data["error"]["code"] == "server_restarted"
        runs = (await house.store.list_runs("alice", thread_id, limit=10)).data
        assert [run.status for run in runs] == ["success", "success", "error"]
        page = await house.store.list_messages("alice", thread_id, limit=10)
        assert [m.content for m in page.data] == [
            "running", "waiting 1", "waiting 1!", "waiting 2", "waiting 2!"
        ]  # fmt: skip


async def test_a_run_that_outlasts_the_grace_period_is_stopped_and_marked(
    open_house, request_for, alice
):
    stopped = []

    async def agent(messages, config):
        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            stopped.append(True)

    async with open_house(agent, grace=0.05) as house:
        thread_id = await house.thread()
        started = await house.runner.start(alice, thread_id, request_for("go"))
        queued = await house.runner.start(alice, thread_id, request_for("later"))
        async for event in house.runner.follow("alice", started.run):
            if event.type == "message.delta":
                break
    assert stopped
    async with open_house(lambda messages, config: "resumed") as house:
        events = await house.events(started.run)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert events[-1].data["error"]["code"] == "server_stopped"
        assert (await house.events(queued.run))[-1].type == "run.completed"


async def test_the_end_of_a_run_is_stored_as_soon_as_the_database_works_again(
    open_house, request_for, alice, caplog
):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def agent(messages, config):
        entered.set()
        await leave.wait()
        return "late but there"

    async with open_house(agent) as house:
        thread_id = await house.thread()
        turn = asyncio.create_task(house.runner.send(alice, thread_id, request_for("go")))
        await entered.wait()
        house.store.finish_run, finish = _failing_twice(house.store.finish_run)
        leave.set()
        assert (await turn).messages[0]["content"] == "late but there"
        assert finish.failures == 2
    told = [record for record in caplog.records if "its end cannot be stored" in record.message]
    assert [(r.message[-9:], bool(r.exc_info)) for r in told] == [("disk full", False)] * 2


class _Failing:
    def __init__(self, method):
        self.method = method
        self.failures = 0

    async def __call__(self, *args, **kwargs):
        if self.failures < 2:
            self.failures += 1
            raise StoreUnavailable("disk full") from sqlite3.OperationalError("disk full")
        return await self.method(*args, **kwargs)


def _failing_twice(method):
    failing = _Failing(method)
    return failing, failing


async def test_a_deletion_cut_short_is_finished_at_the_next_start(open_house, request_for, alice):
    async with open_house(lambda messages, config: "x") as house:
        thread_id = await house.thread()
        await house.runner.send(alice, thread_id, request_for("go"))
        assert await house.store.hide_thread("alice", thread_id) == "agent"
    async with open_house(lambda messages, config: "x") as house:
        await house.runner.finish_deletions()
        assert await house.store.list_hidden_threads() == []
        await house.store.create_thread("bob", thread_id, metadata={})
