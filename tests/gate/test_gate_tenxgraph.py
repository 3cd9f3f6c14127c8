"""A graph of 10xgraph behind the gate; it needs Python 3.12 and the extra `tenxgraph`."""

import asyncio

import pytest

pytest.importorskip("tenxgraph", reason="10xgraph is not installed; it needs Python >= 3.12")

from injectq import InjectQ
from tenxgraph.core.graph import StateGraph
from tenxgraph.core.state import Message
from tenxgraph.storage.checkpointer import InMemoryCheckpointer
from tenxgraph.utils import END

from agentflow_server import require_auth
from agentflow_server.adapters.tenxgraph import TenxGraphAgent
from agentflow_server.gate import CardRefused

CONFIG = {"thread_id": "1", "user_id": "alice"}


@pytest.fixture
def calls():
    return []


@pytest.fixture
def graph(calls):
    def answer(state, config):
        calls.append("model")
        return Message.text_message("answer", role="assistant")

    builder = StateGraph(container=InjectQ())
    builder.add_node("answer", answer)
    builder.add_edge("answer", END)
    return builder.set_entry_point("answer").compile(checkpointer=InMemoryCheckpointer())


def given():
    return {"messages": [Message.text_message("Hello", role="user")]}


async def collect(items):
    return [item async for item in items]


@pytest.mark.parametrize(
    "run",
    [
        lambda graph: graph.invoke(given(), CONFIG),
        lambda graph: list(graph.stream(given(), CONFIG)),
        lambda graph: asyncio.run(graph.ainvoke(given(), CONFIG)),
        lambda graph: asyncio.run(collect(graph.astream(given(), CONFIG))),
    ],
)
def test_a_graph_runs_for_a_good_card_alone(graph, calls, good, verifier, run):
    run(require_auth(graph, good))
    assert calls == ["model"]
    verifier.refuse()
    with pytest.raises(CardRefused):
        run(require_auth(graph, type(good)("other-token", verifier.url)))
    assert calls == ["model"]


def test_no_live_session_begins_without_the_card(graph, bad):
    with pytest.raises(CardRefused):
        asyncio.run(collect(require_auth(graph, bad).arealtime(CONFIG)))


async def test_the_adapter_takes_it_as_the_graph_it_is(graph, calls, bad):
    agent = TenxGraphAgent(require_auth(graph, bad), name="main")
    assert agent.checkpointer is TenxGraphAgent(graph, name="main").checkpointer
