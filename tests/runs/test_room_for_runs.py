"""A place that somebody had taken and does not need is given to who waits for it."""

import asyncio
from typing import Any


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
