"""A process that is killed when it has stored an answer: `python answering_process.py <database>`.

It has no room for the run that goes on: on a file another run takes all of it, on PostgreSQL it
executes nothing. It says the ids of the run's thread and of the run.
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.engines.embedded import EmbeddedEngine
from agentflow_server.events.local import LocalEventBus
from agentflow_server.models import Answer, Principal
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.runner import Runner
from agentflow_server.runs.worker import RunRules, Worker
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.engine_data import Gate, Replica
from agentflow_server.testing.store_data import ALICE

DATABASE = sys.argv[1]
IS_DISTRIBUTED = DATABASE.startswith("postgresql:")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def open_store():
    if not IS_DISTRIBUTED:
        return SqliteStore(Path(DATABASE))
    from agentflow_server.stores.postgres import PostgresStore

    return PostgresStore(DATABASE)


def open_engine(store, worker, bus):
    if not IS_DISTRIBUTED:
        return EmbeddedEngine(store, worker, grace=1, concurrency=1, takes_turns=True)
    from agentflow_server.engines.postgres import PostgresEngine

    return PostgresEngine(store, worker, database=store, signals=bus, grace=1, concurrency=0)


async def main():
    gate = Gate()
    agents = {"agent": FunctionAgent(gate, name="agent")}
    bus = LocalEventBus()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store())
        namer = await stack.enter_async_context(Namer(store))
        worker = Worker(store, bus, agents, namer, RunRules(takes_turns=True))
        engine = await stack.enter_async_context(open_engine(store, worker, bus))
        replica = Replica(store, bus, engine)
        asked = await replica.ask(await replica.thread(), "asked")
        if not IS_DISTRIBUTED:
            await replica.start(await replica.thread(), "busy")
            await gate.begun()
        print(asked.thread_id, asked.run_id, flush=True)
        engine.note_waiting = die
        runner = Runner(store, bus, engine, agents)
        await runner.resume(Principal(ALICE), asked.thread_id, asked.run_id, Answer("yes"))


asyncio.run(main())
