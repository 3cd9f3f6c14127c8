"""Agents of every kind use connections, and what they were given is written down nowhere."""

from pathlib import Path
from typing import Any

import pytest

FUNCTION = """
from agentflow_server import connection, connection_client

async def app(messages, config):
    token = await connection(config, "billing")
    async with connection_client(config, "billing") as client:
        found = (await client.get("/invoices")).json()
    return f"{found['invoices']} invoices, a token of {len(token)}"
"""

SYNCHRONOUS = """
from agentflow_server import connection_client_sync, connection_sync

def app(messages, config):
    token = connection_sync(config, "billing")
    with connection_client_sync(config, "billing") as client:
        found = client.get("/invoices").json()
    yield f"{found['invoices']} invoices, "
    yield f"a token of {len(token)}"
"""

GRAPH = """
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from agentflow_server import connection, connection_client_sync

@tool
def count(config: RunnableConfig) -> int:
    "Counts invoices."
    with connection_client_sync(config, "billing") as client:
        return client.get("/invoices").json()["invoices"]

async def look(state, config: RunnableConfig):
    found = await count.ainvoke({}, config)
    return {"messages": [("assistant", f"{found} invoices")]}

async def answer(state, config: RunnableConfig):
    token = await connection(config, "billing")
    text = state["messages"][-1].content
    return {"messages": [("assistant", f"{text}, a token of {len(token)}")]}

graph = StateGraph(MessagesState).add_node(look).add_node(answer)
app = graph.add_edge(START, "look").add_edge("look", "answer").compile()
"""

TENX_GRAPH = """
from injectq import InjectQ
from tenxgraph.core.graph import StateGraph
from tenxgraph.core.state import Message
from tenxgraph.utils import END

from agentflow_server import connection, connection_client

async def look(state, config):
    token = await connection(config, "billing")
    async with connection_client(config, "billing") as client:
        found = (await client.get("/invoices")).json()["invoices"]
    text = f"{found} invoices, a token of {len(token)}"
    return [Message.text_message(text, role="assistant")]

graph = StateGraph(container=InjectQ())
graph.add_node("look", look)
graph.set_entry_point("look")
graph.add_edge("look", END)
app = graph.compile()
"""

FAILING = """
from agentflow_server import connection

async def app(messages, config):
    token = await connection(config, "billing")
    raise RuntimeError("the agent has failed")
"""

UNKNOWN = """
from agentflow_server import connection

async def app(messages, config):
    await connection(config, "bilin")
"""

PARTING = """
import asyncio
from agentflow_server import ConnectionUnavailable, connection

kept = []

async def app(messages, config):
    for old in kept:
        try:
            await connection(old, "billing")
        except ConnectionUnavailable as exc:
            return exc.reason
    kept.append(config)
    return "kept"
"""


@pytest.fixture
def connections(billing: Any) -> dict[str, Any]:
    return {"billing": {**billing, "client_secret": "${CANARY}"}}


async def say(client: Any) -> tuple[Any, str]:
    """The answer to a message, and everything that the server shows of its run."""
    thread = (await client.post("/threads")).json()["thread_id"]
    answer = await client.post(f"/threads/{thread}/messages", json={"content": "How many?"})
    shown = answer.text
    for path in ("", "/messages", "/runs", "/state", "/history"):
        shown += (await client.get(f"/threads/{thread}{path}")).text
    run_id = (await client.get(f"/threads/{thread}/runs")).json()["data"][0]["run_id"]
    shown += (await client.get(f"/threads/{thread}/runs/{run_id}/events")).text
    return answer, shown


@pytest.mark.parametrize("source", [FUNCTION, SYNCHRONOUS, GRAPH])
async def test_an_agent_calls_another_api_and_nobody_sees_the_credential(
    serve: Any,
    connections: Any,
    provider: Any,
    canary: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    source: str,
) -> None:
    caplog.set_level("DEBUG")
    async with serve(source, connections) as client:
        answer, shown = await say(client)
    assert answer.status_code == 200, answer.text
    expected = f"3 invoices, a token of {len(canary) + 2}"
    assert expected in answer.text
    assert len(provider.at("/token")) == 1
    assert canary not in shown
    assert canary not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    assert not any(canary.encode() in path.read_bytes() for path in files)


async def test_a_graph_of_10xgraph_does_the_same(
    serve: Any, connections: Any, canary: str, tmp_path: Path
) -> None:
    pytest.importorskip("tenxgraph", reason="10xgraph is not installed; it needs Python >= 3.12")
    async with serve(TENX_GRAPH, connections) as client:
        answer, shown = await say(client)
    assert f"3 invoices, a token of {len(canary) + 2}" in answer.text
    assert canary not in shown
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(canary.encode() in path.read_bytes() for path in files)


async def test_a_failure_of_the_agent_does_not_tell_its_token(
    serve: Any, connections: Any, canary: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(FAILING, connections) as client:
        answer, shown = await say(client)
    assert answer.status_code == 500
    assert "the agent has failed" in caplog.text
    assert canary not in shown + caplog.text


async def test_a_wrong_name_fails_the_run_and_the_log_lists_the_right_ones(
    serve: Any, connections: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(UNKNOWN, connections) as client:
        answer, _ = await say(client)
    assert answer.status_code == 500
    assert "there is none of this name; there are: billing" in caplog.text
    assert "bilin" not in answer.text


async def test_what_an_agent_keeps_is_of_no_use_after_its_run(serve: Any, connections: Any) -> None:
    async with serve(PARTING, connections) as client:
        assert "kept" in (await say(client))[0].text
        assert "no_run" in (await say(client))[0].text
