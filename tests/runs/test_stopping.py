"""Runs that do not end by themselves: stopped, timed out, delayed, begun again."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from agentflow_server.errors import NotFound, RunEnded, ThreadBusy
from agentflow_server.interfaces import Agent, AgentAsked, MessageCompleted, TextDelta
from agentflow_server.models import Answer, Interrupt, NewMessage, Principal
from agentflow_server.runs.worker import RunRules

BOB = Principal("bob", {"user_id": "bob"})


class Patient:
    """An agent that says one word at once and the rest when it is let go."""

    def __init__(self):
        self.began = asyncio.Queue()
        self.let_go = asyncio.Event()

    async def __call__(self, messages, config):
        yield "half"
        self.began.put_nowait(messages[-1]["content"])
        await self.let_go.wait()
        yield " and whole"


async def contents(house, thread_id):
    page = await house.store.list_messages("alice", thread_id, limit=50)
    return [(message.role, message.content) for message in page.data]


async def ended(house, run):
    await asyncio.wait_for(house.events(run), 5)
    return await house.run(run.thread_id, run.run_id)


async def test_a_cancelled_run_keeps_what_it_said_and_frees_its_thread(
    open_house, request_for, alice
):
    agent = Patient()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("one"))).run
        await agent.began.get()
        stopped = await house.runner.stop(alice, thread_id, run.run_id, "cancel")
        assert (stopped.status, stopped.error) == ("cancelled", None)
        assert [event.type for event in await house.events(run)][-2:] == [
            "message.completed",
            "run.cancelled",
        ]
        assert await contents(house, thread_id) == [("user", "one"), ("assistant", "half")]
        agent.let_go.set()
        assert (await house.runner.send(alice, thread_id, request_for("two"))).status == "success"


async def test_half_a_message_is_marked_as_partial(open_house, request_for, alice):
    agent = Patient()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("one"))).run
        await agent.began.get()
        await house.runner.stop(alice, thread_id, run.run_id, "cancel")
        messages = await house.store.run_messages(run.run_id)
        assert messages[-1].metadata == {"partial": True}


async def test_a_run_in_line_is_cancelled_without_its_agent_hearing_of_it(
    open_house, request_for, alice
):
    agent = Patient()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        await house.runner.start(alice, thread_id, request_for("one"))
        waiting = asyncio.create_task(house.runner.send(alice, thread_id, request_for("two")))
        while len(runs := (await house.store.list_runs("alice", thread_id, limit=9)).data) < 2:
            await asyncio.sleep(0)
        run = await house.runner.stop(alice, thread_id, runs[0].run_id, "cancel")
        assert run.status == "cancelled"
        assert (await asyncio.wait_for(waiting, 5)).status == "cancelled"
        agent.let_go.set()
        await ended(house, runs[1])
        assert agent.began.qsize() == 1


async def test_whoever_waits_for_a_cancelled_run_hears_what_it_had_said(
    open_house, request_for, alice
):
    agent = Patient()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        waiting = asyncio.create_task(house.runner.send(alice, thread_id, request_for("one")))
        await agent.began.get()
        (run,) = (await house.store.list_runs("alice", thread_id, limit=2)).data
        await house.runner.stop(alice, thread_id, run.run_id, "cancel")
        turn = await asyncio.wait_for(waiting, 5)
        assert (turn.status, turn.messages[-1]["content"]) == ("cancelled", "half")


async def test_what_has_ended_is_not_cancelled_and_a_stranger_finds_nothing(
    open_house, request_for, alice
):
    async with open_house(lambda messages, config: "x") as house:
        thread_id = await house.thread()
        turn = await house.runner.send(alice, thread_id, request_for("one"))
        with pytest.raises(RunEnded):
            await house.runner.stop(alice, thread_id, turn.run_id, "cancel")
        with pytest.raises(NotFound):
            await house.runner.stop(BOB, thread_id, turn.run_id, "cancel")
        assert (await house.run(thread_id, turn.run_id)).status == "success"


@pytest.mark.parametrize(
    ("on_busy", "kept"),
    [
        ("interrupt", [("user", "one"), ("assistant", "half"), ("user", "two")]),
        ("rollback", []),
    ],
)
async def test_an_urgent_message_stops_everything_unfinished(
    open_house, request_for, alice, on_busy, kept
):
    agent = Patient()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        one = (await house.runner.start(alice, thread_id, request_for("one"))).run
        await agent.began.get()
        two = (await house.runner.start(alice, thread_id, request_for("two"))).run
        urgent = asyncio.create_task(
            house.runner.send(alice, thread_id, request_for("now", on_busy=on_busy))
        )
        assert await asyncio.wait_for(agent.began.get(), 5) == "now"
        agent.let_go.set()
        await asyncio.wait_for(urgent, 5)
        assert [(await ended(house, run)).status for run in (one, two)] == ["cancelled"] * 2
        last = [("user", "now"), ("assistant", "half and whole")]
        assert await contents(house, thread_id) == kept + last


async def test_a_message_that_rejects_waiting_changes_nothing(open_house, request_for, alice):
    agent = Patient()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("one"))).run
        with pytest.raises(ThreadBusy):
            await house.runner.start(alice, thread_id, request_for("two", on_busy="reject"))
        agent.let_go.set()
        assert (await ended(house, run)).status == "success"


async def test_an_agent_that_will_not_stop_is_left_alone_and_its_thread_is_free(
    open_house, request_for, alice, monkeypatch
):
    monkeypatch.setattr("agentflow_server.runs.worker.PATIENCE_SECONDS", 0.05)
    began, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn(messages, config):
        while not let_go.is_set():
            try:
                began.set()
                await let_go.wait()
            except asyncio.CancelledError:
                pass
        return "said too late"

    async with open_house(stubborn) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("one"))).run
        await began.wait()
        stopped = await house.runner.stop(alice, thread_id, run.run_id, "cancel")
        assert stopped.status == "cancelled"
        let_go.set()
        assert (await house.runner.send(alice, thread_id, request_for("two"))).status == "success"
        assert ("assistant", "said too late") not in (await contents(house, thread_id))[:2]


async def test_a_turn_that_takes_too_long_is_a_timeout(open_house, request_for, alice):
    agent = Patient()
    async with open_house(agent, rules=RunRules(timeout=0.05)) as house:
        thread_id = await house.thread()
        started = await house.runner.start(alice, thread_id, request_for("one"))
        run = await ended(house, started.run)
        assert run.status == "timeout"
        assert run.error is not None
        assert run.error.code == "run_timeout"
        assert (await house.store.get_thread("alice", thread_id)).status == "error"
        agent.let_go.set()
        assert (await house.runner.send(alice, thread_id, request_for("two"))).status == "success"


async def test_a_delayed_run_starts_in_its_time_and_lets_others_go_first(
    open_house, request_for, alice
):
    async with open_house(lambda messages, config: str(len(messages))) as house:
        thread_id = await house.thread()
        soon = datetime.now(UTC) + timedelta(seconds=0.2)
        later = request_for("later", start_after=soon)
        delayed = (await house.runner.start(alice, thread_id, later)).run
        assert (delayed.status, delayed.start_after) == ("pending", soon)
        await house.runner.send(alice, thread_id, request_for("now"))
        run = await ended(house, delayed)
        assert run.status == "success"
        assert run.started_at is not None
        assert run.started_at >= soon
        assert await contents(house, thread_id) == [
            ("user", "now"), ("assistant", "1"), ("user", "later"), ("assistant", "3"),
        ]  # fmt: skip


class Asking(Agent):
    """Asks for a word, twice, and says what it was told."""

    kind = "asking"
    remembers = True

    async def stream(self, context, messages):
        yield TextDelta("so far ")
        yield MessageCompleted(NewMessage("assistant", "so far "))
        if len(context.answers) < 2:
            number = len(context.answers)
            yield AgentAsked([Interrupt(interrupt_id=f"q{number}", value={"number": number})])
            return
        words = [value for answers in context.answers for value in answers.values()]
        yield MessageCompleted(NewMessage("assistant", " ".join(words)))


async def test_an_interrupted_run_goes_on_each_time_it_is_answered(open_house, request_for, alice):
    async with open_house(Asking()) as house:
        thread_id = await house.thread()
        asked = await house.runner.send(alice, thread_id, request_for("go"))
        question = {"interrupt_id": "q0", "value": {"number": 0}}
        assert (asked.status, asked.interrupts) == ("interrupted", [question])
        thread = await house.store.get_thread("alice", thread_id)
        assert (thread.status, thread.interrupts[0].interrupt_id) == ("interrupted", "q0")
        again = await house.runner.send_answer(alice, thread_id, asked.run_id, Answer("yes"))
        assert (again.status, again.interrupts[0]["interrupt_id"]) == ("interrupted", "q1")
        last = await house.runner.send_answer(
            alice, thread_id, asked.run_id, Answer(by_id={"q1": "no"})
        )
        assert (last.status, last.messages[-1]["content"]) == ("success", "yes no")
        run = await house.run(thread_id, asked.run_id)
        assert (run.status, run.interrupts) == ("success", [])
        types = [event.type for event in await house.events(run)]
        assert types.count("run.started"), types.count("run.resumed") == (1, 2)
        assert [types[0], types[-1]] == ["run.started", "run.completed"]
        said = [content for role, content in await contents(house, thread_id) if role != "user"]
        assert said == ["so far ", "so far ", "so far ", "yes no"]


async def test_an_answer_given_twice_at_once_counts_once(open_house, request_for, alice):
    async with open_house(Asking()) as house:
        thread_id = await house.thread()
        asked = await house.runner.send(alice, thread_id, request_for("go"))
        answers = await asyncio.gather(
            *(
                house.runner.send_answer(alice, thread_id, asked.run_id, Answer("yes"))
                for _ in range(8)
            ),
            return_exceptions=True,
        )
        codes = [getattr(answer, "code", "answered") for answer in answers]
        assert sorted(codes) == ["answered", *["not_interrupted"] * 7]


class Fragile(Agent):
    """Counts how often its turn was begun; never ends it the first time."""

    kind = "fragile"

    def __init__(self, *, resumable=False):
        self.resumable = resumable
        self.attempts = asyncio.Queue()

    async def stream(self, context, messages):
        self.attempts.put_nowait(context.attempt)
        if context.attempt == 1:
            await asyncio.Event().wait()
        yield MessageCompleted(NewMessage("assistant", f"attempt {context.attempt}"))


@pytest.mark.parametrize(
    ("rules", "resumable", "status"),
    [
        (RunRules(), False, "error"),
        (RunRules(), True, "success"),
        (RunRules(retry=True), False, "success"),
        (RunRules(retry=True, max_attempts=1), False, "error"),
    ],
)
async def test_a_run_whose_server_died_is_begun_again_where_that_is_allowed(
    open_house, request_for, alice, rules, resumable, status
):
    agent = Fragile(resumable=resumable)
    async with open_house(agent, rules=rules, grace=0) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("go"))).run
        await agent.attempts.get()
        # What a dead server leaves behind: a running run, and nobody who executes it.
        (left,) = await house.store.interrupted_runs()
        recovered = await house.worker.recover(left)
        if recovered is not None:
            await house.worker.execute(recovered)
        found = await house.run(thread_id, run.run_id)
        assert found.status == status
        assert found.attempt == (2 if status == "success" else 1)


async def test_a_run_that_was_to_be_stopped_when_its_server_died_is_cancelled(
    open_house, request_for, alice
):
    agent = Fragile(resumable=True)
    async with open_house(agent, grace=0) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("go"))).run
        await agent.attempts.get()
        await house.store.stop_run("alice", thread_id, run.run_id, "rollback")
        (left,) = await house.store.interrupted_runs()
        assert await house.worker.recover(left) is None
        assert (await house.run(thread_id, run.run_id)).status == "cancelled"
        assert await contents(house, thread_id) == []
