"""The same echo as a LangGraph graph, and what the framework takes for it without a server.

`python -m benchmarks.graphs ROUNDS THREADS` prints the CPU milliseconds of a bare `graph.ainvoke`
as JSON: a saver's name → a thread's length → one figure per round.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from benchmarks.agents import LENGTHS, TURNS_PER_THREAD, answers_to


async def _echo(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(text) for text in answers_to(state["messages"][-1].text)]}


_builder = StateGraph(MessagesState)
_builder.add_node("echo", _echo)
_builder.add_edge(START, "echo")
_builder.add_edge("echo", END)
app = _builder.compile()


async def time_bare(
    saver: BaseCheckpointSaver[Any], length: int, *, threads: int = 1, turns: int = TURNS_PER_THREAD
) -> float:
    """CPU milliseconds per turn on threads that have `length` messages already."""
    graph = _builder.compile(checkpointer=saver)
    total = 0.0
    for _ in range(threads):
        config: Any = {"configurable": {"thread_id": str(uuid4())}}
        if length:
            await _say(graph, f"fill {length}", config)
        begun = time.process_time()
        for _ in range(turns):
            await _say(graph, "Hello", config)
        total += time.process_time() - begun
    return total / (threads * turns) * 1000


async def _say(graph: Any, content: str, config: Any) -> None:
    await graph.ainvoke({"messages": [{"role": "user", "content": content}]}, config)


async def _measure(rounds: int, threads: int) -> dict[str, dict[int, list[float]]]:
    # Slow to import, and the server that serves `app` does not need it.
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415

    found: dict[str, dict[int, list[float]]] = {
        name: defaultdict(list) for name in ("InMemorySaver", "AsyncSqliteSaver")
    }
    await time_bare(InMemorySaver(), 0, turns=50)
    with tempfile.TemporaryDirectory(prefix="agentflow-") as folder:
        for _ in range(rounds):
            async with AsyncSqliteSaver.from_conn_string(f"{folder}/{uuid4()}.db") as on_disk:
                for length in LENGTHS:
                    for name, saver in zip(found, (InMemorySaver(), on_disk), strict=True):
                        found[name][length].append(await time_bare(saver, length, threads=threads))
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(int(sys.argv[1]), int(sys.argv[2])))))
