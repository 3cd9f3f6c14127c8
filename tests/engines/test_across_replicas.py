"""Any replica can answer for any run."""

import asyncio

from agentflow_server.models import Principal
from agentflow_server.runs.runner import Runner, TurnRequest
from agentflow_server.testing.engine_data import Gate

ALICE = Principal("alice", {"user_id": "alice"})
PATIENCE = 30


def request_for(text):
    return TurnRequest(content=text, agent=None, metadata={}, config={})


def runner_of(replica):
    return Runner(replica.store, replica.bus, replica.engine, {"agent": object()})


async def never(messages, config):
    raise AssertionError("this replica executes nothing")


async def test_a_stream_is_followed_from_another_replica_without_gap_or_repeat(open_distributed):
    async def talking(messages, config):
        for number in range(300):
            yield f"{number} "
            await asyncio.sleep(0)

    async with open_distributed(talking) as one, open_distributed(never, concurrency=0) as other:
        run = await one.start(await one.thread())
        async with asyncio.timeout(PATIENCE):
            found = [
                event async for event in runner_of(other).follow("alice", run) if event is not None
            ]
        assert [event.seq for event in found] == list(range(1, 304))
        assert found[-1].type == "run.completed"


async def test_whoever_asks_where_no_worker_is_gets_the_answer(open_distributed):
    async def echo(messages, config):
        return messages[-1]["content"]

    async with open_distributed(echo), open_distributed(never, concurrency=0) as other:
        thread_id = await other.thread()
        async with asyncio.timeout(PATIENCE):
            turn = await runner_of(other).send(ALICE, thread_id, request_for("Hello"))
        assert [message["content"] for message in turn.messages] == ["Hello"]


async def test_a_run_is_cancelled_from_another_replica(open_distributed):
    gate = Gate()
    async with open_distributed(gate, lease=600.0) as one, open_distributed(never) as other:
        run = await one.start(await one.thread())
        await gate.begun()
        async with asyncio.timeout(PATIENCE):
            stopped = await runner_of(other).stop(ALICE, run.thread_id, run.run_id, "cancel")
        assert stopped.status == "cancelled"


async def test_a_reader_of_one_replica_hears_the_end_when_another_took_the_run_over(
    open_distributed,
):
    async def echo(messages, config):
        return messages[-1]["content"]

    async with open_distributed(never, concurrency=0) as api:
        dead = await api.claim_and_die(await api.thread())
        reading = asyncio.create_task(runner_of(api).wait(ALICE, dead.run))
        async with open_distributed(echo, lease=1.5, retry=True), asyncio.timeout(PATIENCE):
            turn = await reading
        assert [message["content"] for message in turn.messages] == ["Hello"]
