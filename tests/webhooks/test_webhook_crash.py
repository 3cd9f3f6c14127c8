"""A process that is killed loses no delivery."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.stores.sqlite import SqliteStore

PROGRAM = Path(__file__).with_name("telling_process.py")


@pytest.fixture
def telling() -> Callable[..., Any]:
    """A process whose run has ended; killed at the end at the latest."""

    @asynccontextmanager
    async def start(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), *arguments, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == b"ended\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            transport = getattr(process, "_transport")  # noqa: B009 – or its pipe warns later
            transport.close()

    return start


async def test_a_server_that_is_killed_as_a_run_has_ended_tells_it_later(
    telling: Any, listen: Any, send: Any, tmp_path: Path
) -> None:
    receiver = await listen()
    async with telling(str(tmp_path / "k.db"), receiver.url()) as process:
        process.kill()
    assert not receiver.received
    async with SqliteStore(tmp_path / "k.db") as store, send(store):
        (received,) = await receiver.wait_for(1)
    assert b"run.completed" in received.body


async def test_a_sender_that_is_killed_is_followed_by_another(
    telling: Any, listen: Any, send: Any, reply: Any, counts: Any, secrets: Any, tmp_path: Path
) -> None:
    receiver = await listen(reply.never)
    async with telling(str(tmp_path / "k.db"), receiver.url(), secrets[0]) as process:
        await receiver.wait_for(1)
        process.kill()
    async with SqliteStore(tmp_path / "k.db") as store, send(store, count=counts):
        first, second = await receiver.wait_for(2)
        await counts.wait_for(1)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert (first.body, counts) == (second.body, ["delivered"])
