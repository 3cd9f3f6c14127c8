"""A killed process loses nothing that it acknowledged."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from agentflow_server.stores.sqlite import SqliteStore

SCRIPT = Path(__file__).with_name("acknowledging_writer.py")


def write_until_killed(path: Path, lines: int) -> dict[str, list[str]]:
    """The acknowledged message ids of each thread, in order."""
    acknowledged: dict[str, list[str]] = defaultdict(list)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # finds what we find
    with subprocess.Popen(
        [sys.executable, SCRIPT, path], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(lines):
                thread_id, message_id = process.stdout.readline().decode().split()
                acknowledged[thread_id].append(message_id)
        finally:
            process.kill()
        for line in process.stdout:
            if line.endswith(b"\n"):
                thread_id, message_id = line.decode().split()
                acknowledged[thread_id].append(message_id)
    return acknowledged


async def test_every_acknowledged_message_survives_kill_9(path: Path) -> None:
    acknowledged = write_until_killed(path, 500)
    async with SqliteStore(path) as store:
        for thread_id, expected in acknowledged.items():
            page = await store.list_messages("alice", thread_id, limit=100_000)
            stored = [message.message_id for message in page.data]
            # At most one message was stored whose acknowledgement nobody saw any more.
            assert stored[: len(expected)] == expected
            assert len(stored) <= len(expected) + 1


async def test_a_killed_process_leaves_no_lock_and_its_runs_can_be_ended(path: Path) -> None:
    write_until_killed(path, 20)
    async with SqliteStore(path) as store:
        assert await store.claim_next() is None
        threads = (await store.list_threads("alice", limit=99)).data
        busy = {thread.thread_id for thread in threads if thread.status == "busy"}
        assert busy == {active.run.thread_id for active in await store.interrupted_runs()}
