"""Copying threads whose agents make it difficult."""

import asyncio

import pytest
from uuid_utils import uuid7

from agentflow_server.errors import Conflict, NotFound, ThreadBusy
from agentflow_server.interfaces import Agent, HasState, MessageCompleted
from agentflow_server.models import CopyPoint, NewMessage
from agentflow_server.runs.copying import CopyRequest


class Remembering(Agent):
    kind = "test"
    remembers = True

    async def stream(self, context, messages):
        yield MessageCompleted(NewMessage("assistant", "x"))


class Stateful(Remembering, HasState):
    """Its states are the ids of threads; `hold` makes copying wait."""

    def __init__(self):
        self.threads = set()
        self.hold = None
        self.copying = asyncio.Event()
        self.point = None

    async def get_state(self, thread_id):
        return {}

    async def list_history(self, thread_id, *, limit, before=None):
        return []

    async def fork(self, thread_id, checkpoint_id):
        return self.point

    async def copy(self, thread_id, new_thread_id, runs=None):
        self.threads.add(new_thread_id)
        self.copying.set()
        if self.hold is not None:
            await self.hold.wait()

    async def forget(self, thread_id):
        self.threads.discard(thread_id)


@pytest.fixture
def wish():
    def make(checkpoint_id=None):
        return CopyRequest(str(uuid7()), checkpoint_id, {})

    return make


async def has_one_thread(house):
    found = await house.store.list_threads("alice", limit=9)
    return len(found.data) == 1 and await house.store.list_hidden_threads() == []


async def test_a_memory_that_cannot_be_copied_is_a_conflict(open_house, request_for, alice, wish):
    async with open_house(Remembering()) as house:
        thread_id = await house.thread()
        await house.runner.copy_thread(alice, thread_id, wish())
        await house.runner.send(alice, thread_id, request_for("x"))
        with pytest.raises(Conflict):
            await house.runner.copy_thread(alice, thread_id, wish())
        assert len((await house.store.list_threads("alice", limit=9)).data) == 2
        assert await house.store.list_hidden_threads() == []


async def test_the_memory_of_an_agent_that_is_gone_is_a_conflict(
    open_house, request_for, alice, wish
):
    async with open_house(lambda messages, config: "x") as house:
        thread_id = await house.thread()
        await house.runner.send(alice, thread_id, request_for("x"))
        house.runner.agents = {}
        with pytest.raises(Conflict):
            await house.runner.copy_thread(alice, thread_id, wish())
        assert await has_one_thread(house)


async def test_a_state_that_no_run_made_is_no_place_to_copy(open_house, request_for, alice, wish):
    agent = Stateful()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        await house.runner.send(alice, thread_id, request_for("x"))
        for agent.point in (None, CopyPoint(str(uuid7()), "everything")):
            with pytest.raises(NotFound):
                await house.runner.copy_thread(alice, thread_id, wish("c1"))
        assert await has_one_thread(house)
        assert agent.threads == set()


async def test_a_turn_that_begins_while_a_state_is_copied_stops_the_copy(
    open_house, request_for, alice, wish
):
    agent = Stateful()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        await house.runner.send(alice, thread_id, request_for("x"))
        agent.hold = asyncio.Event()
        copying = asyncio.create_task(house.runner.copy_thread(alice, thread_id, wish()))
        await asyncio.wait_for(agent.copying.wait(), 5)
        await house.runner.send(alice, thread_id, request_for("y"))
        agent.hold.set()
        with pytest.raises(ThreadBusy):
            await copying
        assert await has_one_thread(house)
        assert agent.threads == set()


async def test_a_caller_who_leaves_gets_his_copy_all_the_same(open_house, request_for, alice, wish):
    agent = Stateful()
    async with open_house(agent) as house:
        thread_id, wanted = await house.thread(), wish()
        await house.runner.send(alice, thread_id, request_for("x"))
        agent.hold = asyncio.Event()
        copying = asyncio.create_task(house.runner.copy_thread(alice, thread_id, wanted))
        await asyncio.wait_for(agent.copying.wait(), 5)
        copying.cancel()
        await asyncio.wait({copying})
        agent.hold.set()
        async with asyncio.timeout(5):
            while len((await house.store.list_threads("alice", limit=9)).data) < 2:
                await house.store.ping()
        messages = await house.store.list_messages("alice", wanted.thread_id, limit=9)
        assert [message.content for message in messages.data] == ["x", "x"]


async def test_a_copy_that_a_crash_cut_short_is_gone_after_the_next_start(
    open_house, request_for, alice, wish
):
    agent = Stateful()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        await house.runner.send(alice, thread_id, request_for("x"))
        cut_short = await house.store.begin_copy("alice", thread_id, str(uuid7()), metadata={})
        await agent.copy(thread_id, cut_short.thread_id)
    async with open_house(agent) as house:
        await house.runner.finish_deletions()
        assert await has_one_thread(house)
        assert agent.threads == set()
        again = CopyRequest(cut_short.thread_id, None, {})
        await house.runner.copy_thread(alice, thread_id, again)
