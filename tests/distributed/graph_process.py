"""A process that executes runs of a graph: `python graph_process.py <url> <folder> <lease seconds>`.

Each node writes down in the file `log` when it begins; the second one asks if the message is "ask",
and goes on when there is a file `go-<content>` in the folder if it begins with "wait".
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from agentflow_server.adapters.langgraph import LangGraphAgent
from agentflow_server.engines.postgres import PostgresEngine
from agentflow_server.events.postgres import PostgresEventBus
from agentflow_server.runs.naming import Namer
from agentflow_server.runs.worker import RunRules, Worker
from agentflow_server.stores.postgres import PostgresStore

URL, FOLDER, LEASE = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])


def write_down(word, config):
    thread_id = config["configurable"]["thread_id"]
    with (FOLDER / "log").open("a") as file:
        file.write(f"{word} {os.getpid()} {thread_id} {word}\n")


async def first(state, config):
    write_down("first", config)
    return {"messages": [("ai", "first")]}


async def second(state, config):
    write_down("second", config)
    text = state["messages"][-2].content
    if text == "ask":
        return {"messages": [("ai", interrupt("sure?"))]}
    while text.startswith("wait") and not (FOLDER / f"go-{text}").exists():
        await asyncio.sleep(0.02)
    return {"messages": [("ai", "second")]}


async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(URL))
        graph = StateGraph(MessagesState).add_sequence([first, second]).add_edge(START, "first")
        agent = LangGraphAgent(graph.compile(), name="agent", database=store)
        await agent.open()
        bus = await stack.enter_async_context(PostgresEventBus(URL, poll=0.2))
        namer = await stack.enter_async_context(Namer(store))
        worker = Worker(store, bus, {"agent": agent}, namer, RunRules(takes_turns=True))
        engine = PostgresEngine(
            store, worker, database=store, signals=bus, grace=20, concurrency=4, takes_turns=True,
            lease=LEASE, poll=0.2,
        )  # fmt: skip
        await stack.enter_async_context(engine)
        print("ready", flush=True)
        await stopped.wait()


asyncio.run(main())
