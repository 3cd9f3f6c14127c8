"""Our own adapters pass the suite we give to others."""

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from agentflow_server.adapters.asking import ask, ask_sync
from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.testing.agents import AgentSuite


def text_of(content):
    return content if isinstance(content, str) else content[0]["text"]


async def returns(messages):
    return text_of(messages[-1]["content"])


def returns_in_a_thread(messages):
    return text_of(messages[-1]["content"])


async def streams(messages, config):
    for word in ("You", " said ", text_of(messages[-1]["content"])):
        yield word


def streams_in_a_thread(messages, config):
    yield from ("You", " said ", text_of(messages[-1]["content"]))


async def asks(messages, config):
    return await ask(config, "with what?")


def asks_in_a_thread(messages, config):
    return ask_sync(config, "with what?")


async def streams_and_asks(messages, config):
    yield "with what? "
    yield await ask(config, {"about": text_of(messages[-1]["content"])})


def streams_and_asks_in_a_thread(messages, config):
    yield "with what? "
    yield ask_sync(config, {"about": text_of(messages[-1]["content"])})


class TestFunctions(AgentSuite):
    @pytest.fixture(params=[returns, returns_in_a_thread, streams, streams_in_a_thread])
    def agent(self, request):
        return FunctionAgent(request.param, name="main")

    @pytest.fixture(params=[asks, asks_in_a_thread, streams_and_asks, streams_and_asks_in_a_thread])
    def asking_agent(self, request):
        return FunctionAgent(request.param, name="main")


async def echo(state):
    text = text_of(state["messages"][-1].content)
    model = GenericFakeChatModel(messages=iter([AIMessage(f"You said {text}")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


async def ask_in_a_node(state):
    return {"messages": [AIMessage(interrupt("with what?"))]}


class TestLangGraph(AgentSuite):
    @pytest.fixture(params=[None, InMemorySaver()])
    async def asking_agent(self, request, open_graph):
        builder = StateGraph(MessagesState)
        builder.add_node(ask_in_a_node)
        builder.add_edge(START, "ask_in_a_node")
        return (await open_graph(builder.compile(checkpointer=request.param))).agent

    @pytest.fixture(params=[None, False, InMemorySaver()])
    async def agent(self, request, open_graph):
        builder = StateGraph(MessagesState)
        builder.add_node(echo)
        builder.add_edge(START, "echo")
        return (await open_graph(builder.compile(checkpointer=request.param))).agent
