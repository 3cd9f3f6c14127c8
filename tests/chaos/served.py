"""The agents that are killed at work. A message is `NAME WORD WORD …`: what to do, word by word.

Copied into the server's folder. What each word says is deterministic, so that whatever is in the
history can be checked to the letter; `plans.py` knows it, too.
"""

import asyncio
import fcntl
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

from agentflow_server import ask, ask_sync

HERE = Path(__file__).parent


def pause() -> float:
    return random.uniform(0.0, 0.03)


def note(*words: object) -> None:
    """One line in the trace; a single write, so that a killed process leaves none by halves."""
    trace = os.open(HERE / "trace.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(trace, (" ".join(map(str, words)) + "\n").encode())
    os.close(trace)


@contextmanager
def alone(thread_id: str, run_id: str) -> Iterator[None]:
    """Notes whom it finds at work on the thread. The kernel frees the lock of a dead process."""
    lock = os.open(HERE / "locks" / thread_id, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("overlap", thread_id, run_id)
        note("works", thread_id, run_id)
        yield
    finally:
        os.close(lock)


async def talks(messages: list[Any], config: Any) -> AsyncIterator[Any]:
    name, *words = messages[-1]["content"].split()
    with alone(config["thread_id"], config["run_id"]):
        for place, word in enumerate(words):
            await asyncio.sleep(pause())
            match word:
                case "say":
                    for piece in (f"{name}/", f"{place} ", "said"):
                        yield piece
                        await asyncio.sleep(pause() / 3)
                    yield {"role": "assistant", "content": f"{name}/{place} said"}
                case "tool":
                    yield {"calling": place}
                    yield {"role": "tool", "content": f"{name}/{place} found"}
                case "ask":
                    told = await ask(config, {"name": name, "place": place})
                    yield {"role": "assistant", "content": f"{name}/{place} was told {told}"}
                case "wait":
                    await asyncio.sleep(0.2)


def blocks(messages: list[Any], config: Any) -> Iterator[Any]:
    """Cannot be cancelled: it runs in a thread."""
    name, *words = messages[-1]["content"].split()
    with alone(config["thread_id"], config["run_id"]):
        for place, word in enumerate(words):
            time.sleep(pause())
            match word:
                case "say":
                    yield {"role": "assistant", "content": f"{name}/{place} said"}
                case "tool":
                    yield {"role": "tool", "content": f"{name}/{place} found"}
                case "ask":
                    told = ask_sync(config, {"name": name, "place": place})
                    yield {"role": "assistant", "content": f"{name}/{place} was told {told}"}
                case "wait":
                    time.sleep(0.2)


class State(MessagesState):
    name: str
    words: list[str]
    place: int


@contextmanager
def step(config: RunnableConfig) -> Iterator[None]:
    with alone(config["configurable"]["thread_id"], config["configurable"]["run_id"]):
        yield


async def plan(state: State, config: RunnableConfig) -> dict[str, Any]:
    with step(config):
        name, *words = str(state["messages"][-1].content).split()
        return {"name": name, "words": words, "place": 0}


async def say(state: State, config: RunnableConfig) -> dict[str, Any]:
    with step(config):
        await asyncio.sleep(pause())
        text = f"{state['name']}/{state['place']} said"
        return {"messages": [AIMessage(text)], "place": state["place"] + 1}


async def call(state: State, config: RunnableConfig) -> dict[str, Any]:
    with step(config):
        await asyncio.sleep(pause())
        wanted = {"name": "look", "args": {"at": state["place"]}, "id": f"call-{state['place']}"}
        text = f"{state['name']}/{state['place']} looks"
        return {"messages": [AIMessage(text, tool_calls=[wanted])]}


async def tool(state: State, config: RunnableConfig) -> dict[str, Any]:
    with step(config):
        await asyncio.sleep(pause())
        found = f"{state['name']}/{state['place']} found"
        result = ToolMessage(found, tool_call_id=f"call-{state['place']}", name="look")
        return {"messages": [result], "place": state["place"] + 1}


async def asks(state: State, config: RunnableConfig) -> dict[str, Any]:
    with step(config):
        told = interrupt({"name": state["name"], "place": state["place"]})
        await asyncio.sleep(pause())
        text = f"{state['name']}/{state['place']} was told {told}"
        return {"messages": [AIMessage(text)], "place": state["place"] + 1}


async def wait(state: State, config: RunnableConfig) -> dict[str, Any]:
    with step(config):
        await asyncio.sleep(0.2)
        return {"place": state["place"] + 1}


def choose(state: State) -> str:
    here = state["words"][state["place"] :]
    return {"say": "say", "tool": "call", "ask": "asks", "wait": "wait"}[here[0]] if here else END


def build_graph() -> Any:
    builder = StateGraph(State)
    for node in (plan, say, call, tool, asks, wait):
        builder.add_node(node)
    builder.add_edge(START, "plan")
    for node in ("plan", "say", "tool", "asks", "wait"):
        builder.add_conditional_edges(node, choose)
    builder.add_edge("call", "tool")
    return builder.compile()


graph = build_graph()
