"""Whoever accepts an answer may die at once: somebody else goes on with it."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentflow_server.errors import NotInterrupted
from agentflow_server.models import Answer
from agentflow_server.testing.store_data import ALICE

SCRIPT = Path(__file__).with_name("answering_process.py")


def answer_and_die(database):
    """The thread and the run that it has answered."""
    ended = subprocess.run(
        [sys.executable, SCRIPT, database], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return ended.stdout.split()


@pytest.mark.parametrize("kind", ["file", "postgres"])
async def test_an_accepted_answer_outlives_the_process_that_had_no_room_for_it(
    kind, tmp_path, request
):
    database, fixture = str(tmp_path / "a.db"), "open_embedded"
    if kind == "postgres":
        database, fixture = request.getfixturevalue("postgres_url"), "open_distributed"
    thread_id, run_id = await asyncio.to_thread(answer_and_die, database)
    given = []

    async def agent(messages, config):
        given.append(messages[-1]["content"])
        return "done"

    async with request.getfixturevalue(fixture)(agent) as replica:
        run = await replica.store.get_run(ALICE, thread_id, run_id)
        ended = await replica.ended(run)
        assert (ended.status, ended.attempt) == ("success", 1)
        assert await replica.answers(run) == ["done"]
        with pytest.raises(NotInterrupted):
            await replica.store.resume_run(ALICE, thread_id, run_id, Answer("again"))
    assert given == ["asked"]
