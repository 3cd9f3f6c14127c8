"""Who waits for a place, and who gets it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest

from agentflow_server.interfaces import (
    Agent,
    AgentAsked,
    AgentEvent,
    MessageCompleted,
    RunContext,
    TextDelta,
)
from agentflow_server.models import Answer, Interrupt, Message, NewMessage
from agentflow_server.runs.following import EVENTS_PER_READ, Turn


async def test_a_place_that_is_given_back_is_used(
    open_house: Any, request_for: Any, alice: Any
) -> None:
    async with open_house(lambda messages, config: "done", concurrency=1) as house:
        engine = house.runner._engine
        thread_id = await house.thread()
        while not engine.reserve():  # for a message that will turn out to have to wait
            await asyncio.sleep(0)
        run = (await house.runner.start(alice, thread_id, request_for("one"))).run
        assert run.status == "pending"
        engine.release()
        await asyncio.wait_for(house.events(run), 5)
        assert (await house.run(thread_id, run.run_id)).status == "success"


class Talkative(Agent):
    """Says much and asks; with an answer it says that, and waits to be let go."""

    kind = "talkative"
    remembers = True

    def __init__(self) -> None:
        self.undone: list[str] = []
        self.is_busy, self.let_go = asyncio.Event(), asyncio.Event()

    async def stream(
        self, context: RunContext, messages: Sequence[Message]
    ) -> AsyncGenerator[AgentEvent, None]:
        if messages[-1].content == "busy":
            self.is_busy.set()
            await self.let_go.wait()
            return
        if not context.answers:
            for number in range(2 * EVENTS_PER_READ):
                yield TextDelta(f"{number} ")
            yield AgentAsked([Interrupt(interrupt_id="q", value="?")])
            return
        yield MessageCompleted(NewMessage("assistant", "".join(context.answers[0].values())))

    async def undo(self, thread_id: str, run_id: str) -> None:
        self.undone.append(run_id)


@pytest.fixture
async def crowded(
    open_house: Any, request_for: Any, alice: Any
) -> AsyncIterator[tuple[Any, Talkative, Turn]]:
    """A house where a run has asked, and another one takes all the room."""
    agent = Talkative()
    async with open_house(agent, concurrency=1) as house:
        asked = await house.runner.send(alice, await house.thread(), request_for("go"))
        await house.runner.start(alice, await house.thread(), request_for("busy"))
        await asyncio.wait_for(agent.is_busy.wait(), 30)
        yield house, agent, asked
        agent.let_go.set()


async def test_whoever_answers_waits_for_room_and_for_what_is_said_then(
    crowded: Any, alice: Any
) -> None:
    house, agent, asked = crowded
    answering = asyncio.create_task(
        house.runner.send_answer(alice, asked.thread_id, asked.run_id, Answer("yes"))
    )
    async with asyncio.timeout(30):
        while (await house.run(asked.thread_id, asked.run_id)).status != "pending":
            await asyncio.sleep(0)
        agent.let_go.set()
        turn = await answering
    assert [message["content"] for message in turn.messages] == ["yes"]


async def test_readers_of_an_answered_run_hear_that_it_was_cancelled_while_it_waited(
    crowded: Any, alice: Any
) -> None:
    house, _, asked = crowded
    resumed = await house.runner.resume(alice, asked.thread_id, asked.run_id, Answer("yes"))
    assert (resumed.run.status, resumed.run.queue_position) == ("pending", 1)
    async with house.bus.subscribe(asked.run_id) as subscription:
        stopped = await house.runner.stop(alice, asked.thread_id, asked.run_id, "cancel")
        assert stopped.status == "cancelled"
        (told,) = await subscription.receive(30)
    assert (told.seq, told.type) == (resumed.last_seq + 1, "run.cancelled")
    turn = await house.runner.wait(alice, resumed.run)
    assert turn.status == "cancelled"


async def test_an_agent_forgets_what_is_rolled_back_while_it_waits(
    crowded: Any, alice: Any
) -> None:
    house, agent, asked = crowded
    await house.runner.resume(alice, asked.thread_id, asked.run_id, Answer("yes"))
    stopping = asyncio.create_task(
        house.runner.stop(alice, asked.thread_id, asked.run_id, "rollback")
    )
    async with asyncio.timeout(30):
        agent.let_go.set()
        assert (await stopping).status == "cancelled"
    assert agent.undone == [asked.run_id]
    assert await house.store.run_messages(asked.run_id) == []
