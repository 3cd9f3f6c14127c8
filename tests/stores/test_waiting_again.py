"""Runs that have begun before and wait in line once more, on both databases."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentflow_server.models import Answer
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    SUCCESS,
    ask,
    claim,
    make_thread,
    new_run,
    start,
)

YES = Answer(value="yes")


@pytest.fixture(params=["sqlite", "postgres"])
async def limited(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Any]:
    """A store that lets each owner have one running run."""
    async with _open(request, path) as store:
        yield store


@asynccontextmanager
async def _open(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Any]:
    if request.param == "sqlite":
        async with SqliteStore(path, runs_per_owner=1) as store:
            yield store
        return
    url = request.getfixturevalue("postgres_url")
    from agentflow_server.stores.postgres import PostgresStore

    async with PostgresStore(url, runs_per_owner=1) as store:
        yield store


async def test_an_answered_run_waits_while_its_owner_has_his_share(limited: Any) -> None:
    thread, other = await make_thread(limited), await make_thread(limited)
    asked = await ask(limited, thread.thread_id, "q1")
    busy = await start(limited, other.thread_id)
    resumed = await limited.resume_run(ALICE, thread.thread_id, asked.run.run_id, YES)
    assert (resumed.active, resumed.run.status) == (None, "pending")
    assert await limited.claim_next() is None
    await limited.finish_run(busy, SUCCESS, [], [])
    claimed = await claim(limited, thread.thread_id)
    assert list(claimed.answers) == [{"q1": "yes"}]


async def test_an_answered_run_goes_on_at_once_where_its_owner_has_room(limited: Any) -> None:
    bobs = await make_thread(limited, BOB)
    assert (await limited.start_run(BOB, new_run(bobs.thread_id))).active is not None
    thread = await make_thread(limited)
    asked = await ask(limited, thread.thread_id, "q1")
    resumed = await limited.resume_run(ALICE, thread.thread_id, asked.run.run_id, YES)
    assert resumed.active is not None


async def test_a_run_that_was_answered_just_now_is_not_said_to_wait_since_it_was_sent(
    limited: Any,
) -> None:
    thread = await make_thread(limited)
    asked = await ask(limited, thread.thread_id, "q1")
    sql = "UPDATE runs SET created_at = created_at - 3600000000"
    await limited.write(lambda connection: connection.execute(sql))
    await limited.resume_run(ALICE, thread.thread_id, asked.run.run_id, YES, claim=False)
    queue = await limited.read_queue()
    assert (queue.running, queue.pending, queue.ready) == (0, 1, 1)
    assert queue.oldest_seconds < 3600
