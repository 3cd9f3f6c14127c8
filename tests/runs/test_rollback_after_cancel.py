"""Two people stop the same run: one wants to keep what it said, the other one to forget it."""

import asyncio
import threading
from typing import Any

import pytest

from agentflow_server.errors import RunEnded


class Unstoppable:
    """A synchronous agent: it is waited for, however often it is cancelled."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, messages: Any, config: Any) -> Any:
        yield "half"
        self.began.set()
        self.let_go.wait(30)


@pytest.mark.parametrize("order", [("cancel", "rollback"), ("rollback", "cancel")])
async def test_a_rollback_beats_a_cancel_whichever_comes_first(
    order: Any, open_house: Any, request_for: Any, alice: Any
) -> None:
    agent = Unstoppable()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("one"))).run
        await asyncio.to_thread(agent.began.wait, 30)
        stopping = []
        for how in order:
            stopping.append(
                asyncio.create_task(house.runner.stop(alice, thread_id, run.run_id, how))
            )
            await house.store.ping()  # what was asked before is written now
            await house.store.ping()
        agent.let_go.set()
        for stopped in await asyncio.gather(*stopping):
            assert stopped.status == "cancelled"
        assert not await house.store.run_messages(run.run_id)


async def test_who_comes_too_late_to_roll_back_is_told_so(
    open_house: Any, request_for: Any, alice: Any, monkeypatch: Any
) -> None:
    agent = Unstoppable()
    async with open_house(agent) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("one"))).run
        await asyncio.to_thread(agent.began.wait, 30)
        # The agent has ended and the cancelled run is about to be stored: nobody listens now.
        monkeypatch.setattr(house.worker, "stop", lambda run_id, how: None)
        late = asyncio.create_task(house.runner.stop(alice, thread_id, run.run_id, "rollback"))
        await house.store.ping()
        await house.store.ping()
        monkeypatch.undo()
        house.worker.stop(run.run_id, "cancel")
        agent.let_go.set()
        with pytest.raises(RunEnded):
            await late
        assert len(await house.store.run_messages(run.run_id)) == 2


async def test_a_rollback_is_honoured_by_a_server_that_is_stopped_meanwhile(
    open_house: Any, request_for: Any, alice: Any
) -> None:
    began = asyncio.Event()

    async def tidies_up_for_ever(messages: Any, config: Any) -> str:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()
        return "never"

    async with open_house(tidies_up_for_ever, grace=0) as house:
        thread_id = await house.thread()
        run = (await house.runner.start(alice, thread_id, request_for("one"))).run
        await began.wait()
        stopping = asyncio.create_task(house.runner.stop(alice, thread_id, run.run_id, "rollback"))
        await house.store.ping()
        await house.store.ping()
        stopping.cancel()
    async with open_house(tidies_up_for_ever) as house:
        assert (await house.run(thread_id, run.run_id)).status == "cancelled"
        assert not await house.store.run_messages(run.run_id)
