"""An agent that says nothing for long: its readers know nevertheless that it is at work."""

import json

SILENT = """
import asyncio
async def app(messages, config):
    await asyncio.Event().wait()
    yield "never"
"""


async def test_readers_of_a_silent_agent_hear_that_it_was_started(serve, new_thread):
    client = await serve(SILENT)
    url = f"/threads/{await new_thread(client)}/messages"
    async with client.stream("POST", url, json={"content": "x", "stream": True}) as answer:
        lines = answer.aiter_lines()
        assert [await anext(lines), await anext(lines)] == ["id: 1", "event: run.started"]
        run = json.loads((await anext(lines)).removeprefix("data: "))
    assert run["status"] == "running"
