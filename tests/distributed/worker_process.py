"""A process that executes runs: `python worker_process.py <url> <folder> <lease seconds>`.

Its agent writes down in the file `log` when it begins and ends, and goes on when there is a file
`go-<content>` in the folder, for contents that begin with "wait".
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.engines.postgres import PostgresEngine
from agentflow_server.events.postgres import PostgresEventBus
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.worker import RunRules, Worker
from agentflow_server.stores.postgres import PostgresStore

URL, FOLDER, LEASE = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])


def write_down(word, config, text):
    with (FOLDER / "log").open("a") as file:
        file.write(f"{word} {os.getpid()} {config['thread_id']} {text}\n")


async def agent(messages, config):
    text = messages[-1]["content"]
    write_down("begin", config, text)
    try:
        for part in range(3):
            yield f"part {part} "
            await asyncio.sleep(0.01)
        if text.startswith("wait"):
            while not (FOLDER / f"go-{text}").exists():
                await asyncio.sleep(0.02)
        yield "done"
    finally:
        write_down("end", config, text)


async def main():
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(URL))
        bus = await stack.enter_async_context(PostgresEventBus(URL, poll=0.2))
        namer = await stack.enter_async_context(Namer(store))
        agents = {"agent": FunctionAgent(agent, name="agent")}
        worker = Worker(store, bus, agents, namer, RunRules(retry=True, takes_turns=True))
        engine = PostgresEngine(
            store,
            worker,
            database=store,
            signals=bus,
            grace=20,
            concurrency=4,
            takes_turns=True,
            lease=LEASE,
            poll=0.2,
        )
        await stack.enter_async_context(engine)
        print("ready", flush=True)
        await stopped.wait()


asyncio.run(main())
