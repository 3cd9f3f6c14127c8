"""How many turns are executed at a time."""

import asyncio

from agentflow_server.models import Principal

BOB = Principal("bob", {"user_id": "bob"})


class Counting:
    """Knows how many of its turns go on, and lets one end at a time."""

    def __init__(self):
        self.now = self.most = 0
        self.order = []
        self.let_go = asyncio.Semaphore(0)

    async def __call__(self, messages, config):
        self.now += 1
        self.most = max(self.most, self.now)
        self.order.append(messages[-1]["content"])
        try:
            await self.let_go.acquire()
        finally:
            self.now -= 1
        return "done"


async def statuses(house, runs):
    return [(await house.run(run.thread_id, run.run_id)).status for run in runs]


async def start_all(house, request_for, caller, texts):
    started = []
    for text in texts:
        thread = await house.store.create_thread(
            caller.id, f"00000000-0000-4000-8000-{len(started):012d}", metadata={}
        )
        request = request_for(text)
        started.append((await house.runner.start(caller, thread.thread_id, request)).run)
    return started


async def test_no_more_turns_are_executed_at_a_time_than_allowed_and_all_in_the_end(
    open_house, request_for, alice
):
    agent = Counting()
    async with open_house(agent, concurrency=2) as house:
        runs = await start_all(house, request_for, alice, "abcde")
        assert await statuses(house, runs) == ["running"] * 2 + ["pending"] * 3
        thread = await house.store.get_thread("alice", runs[-1].thread_id)
        assert thread.status == "busy"
        for _ in runs:
            agent.let_go.release()
        for run in runs:
            await asyncio.wait_for(house.events(run), 30)
        assert agent.most == 2
        assert agent.order == list("abcde"), "who waits longest is next"
        assert await statuses(house, runs) == ["success"] * 5


async def test_many_messages_at_once_do_not_slip_through(open_house, request_for, alice):
    agent = Counting()
    async with open_house(agent, concurrency=3) as house:
        threads = [await house.thread() for _ in range(20)]
        started = await asyncio.gather(
            *(house.runner.start(alice, thread_id, request_for("x")) for thread_id in threads)
        )
        for _ in started:
            agent.let_go.release()
        for one in started:
            await asyncio.wait_for(house.events(one.run), 5)
        assert agent.most == 3


async def test_a_busy_thread_does_not_keep_its_place_while_others_wait(
    open_house, request_for, alice
):
    agent = Counting()
    async with open_house(agent, concurrency=1) as house:
        one, two = await house.thread(), await house.thread()
        runs = [
            (await house.runner.start(alice, thread_id, request_for(text))).run
            for thread_id, text in [(one, "1a"), (one, "1b"), (two, "2a"), (one, "1c")]
        ]
        for _ in runs:
            agent.let_go.release()
        for run in runs:
            await asyncio.wait_for(house.events(run), 30)
        assert agent.order == ["1a", "1b", "2a", "1c"]


async def test_nobody_who_comes_when_a_place_gets_free_goes_before_those_in_line(
    open_house, request_for, alice
):
    agent = Counting()
    async with open_house(agent, concurrency=1) as house:
        texts = [str(number) for number in range(40)]
        for _ in texts:
            agent.let_go.release()
        runs = await start_all(house, request_for, alice, texts)
        for run in runs:
            await asyncio.wait_for(house.events(run), 30)
        assert agent.order == texts


async def test_one_caller_cannot_take_the_place_of_another(open_house, request_for, alice):
    agent = Counting()
    async with open_house(agent, per_owner=1) as house:
        first, second = [
            (await house.runner.start(alice, await house.thread(), request_for(text))).run
            for text in ("a", "b")
        ]
        thread = await house.store.create_thread(
            "bob", "0" * 8 + "-0000-4000-8000-" + "0" * 12, metadata={}
        )
        other = (await house.runner.start(BOB, thread.thread_id, request_for("c"))).run
        assert await statuses(house, [first, second]) == ["running", "pending"]
        assert other.status == "running"
        for _ in range(3):
            agent.let_go.release()
        await asyncio.wait_for(house.events(second), 5)
        assert agent.order == ["a", "c", "b"]
