"""Writes turns on several threads and prints every message that was acknowledged, until killed."""

import asyncio
import sys
from pathlib import Path

from agentflow_server.models import RunOutcome
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_data import ALICE, answer, make_thread, new_run


async def talk(store: SqliteStore, thread_id: str) -> None:
    while True:
        started = await store.start_run(ALICE, new_run(thread_id))
        acknowledge(thread_id, started.message.message_id)
        if started.active:
            reply = answer(started.active)
            await store.finish_run(started.active, RunOutcome("success"), [reply], [])
            acknowledge(thread_id, reply.message_id)


def acknowledge(thread_id: str, message_id: str) -> None:
    sys.stdout.write(f"{thread_id} {message_id}\n")
    sys.stdout.flush()


async def main(path: Path) -> None:
    async with SqliteStore(path) as store:
        threads = [await make_thread(store) for _ in range(8)]
        await asyncio.gather(*(talk(store, thread.thread_id) for thread in threads))


asyncio.run(main(Path(sys.argv[1])))
