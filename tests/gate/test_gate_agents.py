"""Agents of all kinds behind the gate: no way in without the card, and they stay what they were."""

import asyncio
import copy
import functools
import inspect
import json
import textwrap

import httpx2
import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agentflow_server import require_auth
from agentflow_server.adapters.function import FunctionAgent
from agentflow_server.gate import CardRefused
from agentflow_server.interfaces import Agent, MessageCompleted
from agentflow_server.models import NewMessage

GIVEN = {"messages": [("user", "Hello")]}
CONFIG = {"configurable": {"thread_id": "1"}}


class Model:
    """Counts how often it is called."""

    def __init__(self):
        self.calls = 0

    def answer(self):
        self.calls += 1
        return "answer"


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def graph(model):
    def answer(state):
        return {"messages": [("assistant", model.answer())]}

    return (
        StateGraph(MessagesState)
        .add_node(answer)
        .add_edge(START, "answer")
        .compile(checkpointer=InMemorySaver())
    )


async def collect(items):
    return [item async for item in items]


async def run_events(graph):
    events = await graph.astream_events(GIVEN, CONFIG, version="v3")
    return await events.output()


def run_as_subgraph(graph):
    outer = StateGraph(MessagesState).add_node("inner", graph).add_edge(START, "inner").compile()
    return outer.invoke(GIVEN)


WAYS = {
    "invoke": lambda graph: graph.invoke(GIVEN, CONFIG),
    "stream": lambda graph: list(graph.stream(GIVEN, CONFIG)),
    "batch": lambda graph: graph.batch([GIVEN], CONFIG),
    "batch_as_completed": lambda graph: list(graph.batch_as_completed([GIVEN], CONFIG)),
    "transform": lambda graph: list(graph.transform(iter([GIVEN]), CONFIG)),
    "stream_events": lambda graph: graph.stream_events(GIVEN, CONFIG, version="v3").output,
    "ainvoke": lambda graph: asyncio.run(graph.ainvoke(GIVEN, CONFIG)),
    "astream": lambda graph: asyncio.run(collect(graph.astream(GIVEN, CONFIG))),
    "abatch": lambda graph: asyncio.run(graph.abatch([GIVEN], CONFIG)),
    "astream_events": lambda graph: asyncio.run(
        collect(graph.astream_events(GIVEN, CONFIG, version="v2"))
    ),
    "astream_events v3": lambda graph: asyncio.run(run_events(graph)),
    "astream_log": lambda graph: asyncio.run(collect(graph.astream_log(GIVEN, CONFIG))),
    "in a sequence": lambda graph: (graph | RunnableLambda(lambda state: state)).invoke(
        GIVEN, CONFIG
    ),
    "with_config": lambda graph: graph.with_config(tags=["x"]).invoke(GIVEN, CONFIG),
    "bind": lambda graph: graph.bind().invoke(GIVEN, CONFIG),
    "copy": lambda graph: graph.copy().invoke(GIVEN, CONFIG),
    "copy.copy": lambda graph: copy.copy(graph).invoke(GIVEN, CONFIG),
    "as a subgraph": run_as_subgraph,
}


@pytest.fixture(params=WAYS, ids=str)
def way(request):
    """Each way to run a graph."""
    return WAYS[request.param]


@pytest.mark.filterwarnings("ignore:.*(beta|experimental|deprecated)")
def test_a_graph_runs_for_a_good_card(graph, model, good, way):
    way(require_auth(graph, good))
    assert model.calls == 1


@pytest.mark.filterwarnings("ignore:.*(beta|experimental|deprecated)")
def test_no_way_into_a_graph_calls_a_model_without_the_card(graph, model, bad, way):
    with pytest.raises(CardRefused):
        way(require_auth(graph, bad))
    assert model.calls == 0


def test_a_graph_stays_a_graph(graph, good):
    gated = require_auth(graph, good)
    gated.invoke(GIVEN, CONFIG)
    assert isinstance(gated, CompiledStateGraph)
    assert type(gated).__name__ == "CompiledStateGraph"
    assert [m.content for m in gated.get_state(CONFIG).values["messages"]] == ["Hello", "answer"]
    assert inspect.signature(gated.invoke) == inspect.signature(graph.invoke)
    assert gated.checkpointer is graph.checkpointer


def test_states_are_shown_and_the_graph_itself_runs_without_the_card(graph, model, bad):
    gated = require_auth(graph, bad)
    graph.invoke(GIVEN, CONFIG)
    assert len(gated.get_state(CONFIG).values["messages"]) == 2
    assert model.calls == 1


def test_a_card_that_ends_ends_the_agent(graph, model, verifier):
    from agentflow_server import AuthCard

    gated = require_auth(graph, AuthCard("a-token", verifier.url, cache_seconds=0))
    gated.invoke(GIVEN, CONFIG)
    verifier.refuse()
    with pytest.raises(CardRefused):
        gated.invoke(GIVEN, CONFIG)
    assert model.calls == 1


def test_two_cards_are_both_needed(graph, model, good, verifier):
    from agentflow_server import AuthCard

    other = require_auth(require_auth(graph, good), AuthCard("other-token", verifier.url))
    other.invoke(GIVEN, CONFIG)
    assert {token for _, token in verifier.asked} == {"Bearer good-token", "Bearer other-token"}


def test_a_method_of_the_instance_does_not_come_before_the_gate(graph, model, bad):
    graph.invoke = lambda *_: model.answer()
    with pytest.raises(CardRefused):
        require_auth(graph, bad).invoke(GIVEN)
    assert model.calls == 0


def test_langgraphs_functions_are_gated(model, bad):
    @entrypoint()
    def flow(given: str) -> str:
        return model.answer()

    with pytest.raises(CardRefused):
        require_auth(flow, bad).invoke("Hello")
    assert (flow.invoke("Hello"), model.calls) == ("answer", 1)


@pytest.mark.parametrize(
    "run",
    [
        lambda chain: chain.invoke("x"),
        lambda chain: chain.batch(["x"]),
        lambda chain: list(chain.stream("x")),
        lambda chain: list(chain.transform(iter(["x"]))),
        lambda chain: asyncio.run(chain.ainvoke("x")),
        lambda chain: asyncio.run(chain.abatch(["x"])),
        lambda chain: asyncio.run(collect(chain.astream("x"))),
        lambda chain: (chain | str).invoke("x"),
        lambda chain: (RunnableLambda(str) | chain).invoke("x"),
        lambda chain: chain.with_config(tags=["x"]).invoke("x"),
    ],
)
def test_a_chain_is_gated_also_as_a_part_of_another(model, verifier, good, run):
    chain = RunnableLambda(str) | RunnableLambda(lambda _: model.answer())
    gated = require_auth(chain, good)
    run(gated)
    assert model.calls == 1
    verifier.refuse()
    with pytest.raises(CardRefused):
        run(require_auth(chain, type(good)("other-token", verifier.url)))
    assert model.calls == 1


def functions(model):
    def plain(messages, config):
        return model.answer()

    async def coroutine(messages, config):
        return model.answer()

    def stream(messages, config):
        yield model.answer()

    async def async_stream(messages, config):
        yield model.answer()

    class Callable:
        """Has a state, and is called like a function."""

        state = "kept"

        def __call__(self, messages, config):
            return model.answer()

    class AsyncCallable:
        async def __call__(self, messages, config):
            return model.answer()

    class AsyncStreaming:
        async def __call__(self, messages, config):
            yield model.answer()

    found = [plain, coroutine, stream, async_stream, functools.partial(plain), Callable()]
    return [*found, functools.partial(coroutine), AsyncCallable(), AsyncStreaming()]


@pytest.fixture(params=range(9))
def function(request, model):
    return functions(model)[request.param]


async def run_function(function):
    """As the server calls it."""
    agent = FunctionAgent(function, name="main")
    call = agent._takes_config, agent._creates_only
    result = await asyncio.to_thread(function, [{"role": "user", "content": "Hi"}], {})
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "__anext__"):
        (result,) = await collect(result)
    elif not isinstance(result, str):
        (result,) = await asyncio.to_thread(list, result)
    return result, call


async def test_functions_of_all_forms_run_for_a_good_card(function, model, good):
    answer, (takes_config, _) = await run_function(require_auth(function, good))
    assert (answer, takes_config, model.calls) == ("answer", True, 1)


async def test_functions_of_all_forms_refuse_without_it(function, model, bad):
    with pytest.raises(CardRefused):
        await run_function(require_auth(function, bad))
    assert model.calls == 0


def test_a_function_that_takes_messages_alone_still_does(good):
    assert require_auth(lambda messages: "hi", good)([]) == "hi"
    assert not FunctionAgent(require_auth(lambda messages: "hi", good), name="main")._takes_config


class Assistant:
    """None of a framework's: what it can do is not known."""

    def __init__(self, model, name="assistant"):
        self.model = model
        self.name = name

    def invoke(self, message):
        return self.model.answer()

    async def ainvoke(self, message):
        return self.model.answer()

    def stream(self, message):
        yield self.model.answer()

    async def astream(self, message):
        yield self.model.answer()

    def chat(self, message):
        return self.model.answer()

    def get_state(self):
        return {"name": self.name}

    def renamed(self, name):
        return Assistant(self.model, name)

    def myself(self):
        return self


class Sly(Assistant):
    """Its async methods do not look it."""

    def ainvoke(self, message):
        return super().ainvoke(message)

    def astream(self, message):
        return super().astream(message)


class Numbers:
    """An async iterator that is no generator."""

    def __init__(self, model):
        self.answers = [model.answer()]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.answers:
            raise StopAsyncIteration
        return self.answers.pop()


class Odd(Assistant):
    def astream(self, message):
        return Numbers(self.model)

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value.title() if name == "name" else value)


OBJECT_WAYS = [
    lambda agent: agent.invoke("Hi"),
    lambda agent: asyncio.run(agent.ainvoke("Hi")),
    lambda agent: next(agent.stream("Hi")),
    lambda agent: asyncio.run(collect(agent.astream("Hi")))[0],
    lambda agent: agent.chat("Hi"),
    lambda agent: copy.copy(agent).chat("Hi"),
    lambda agent: agent.renamed("other").chat("Hi"),
]


@pytest.mark.parametrize("kind", [Assistant, Sly, Odd])
@pytest.mark.parametrize("run", OBJECT_WAYS)
def test_any_object_is_gated_whatever_its_methods_are_called(model, good, verifier, kind, run):
    assert run(require_auth(kind(model), good)) == "answer"
    verifier.refuse()
    with pytest.raises(CardRefused):
        run(require_auth(kind(model), type(good)("other-token", verifier.url)))
    assert model.calls == 1


def test_what_an_object_builds_is_behind_the_gate_too(model, verifier):
    from agentflow_server import AuthCard

    gated = require_auth(Assistant(model), AuthCard("a-token", verifier.url, cache_seconds=0))
    other, same = gated.renamed("other"), gated.myself()
    assert same is gated
    verifier.refuse()
    for built in (other, same):
        with pytest.raises(CardRefused):
            built.chat("Hi")
    assert model.calls == 0


def test_the_attributes_of_an_object_stay(model, good):
    agent = Assistant(model)
    gated = require_auth(agent, good)
    gated.name = "renamed"
    assert (gated.name, agent.name, gated.get_state()) == (
        "renamed",
        "renamed",
        {"name": "renamed"},
    )
    assert "chat" in dir(gated)
    assert "behind AuthCard(" in repr(gated)
    assert not callable(gated)
    with pytest.raises(AttributeError, match="no_such"):
        gated.no_such_thing()


def test_an_object_sets_its_attributes_itself(model, good):
    gated = require_auth(Odd(model), good)
    gated.name = "renamed"
    assert gated.name == "Renamed"


async def test_a_stream_that_is_awaited_first_stays_so(model, good, verifier):
    class Awaited:
        async def astream(self, message):
            return Numbers(model)

    assert await collect(await require_auth(Awaited(), good).astream("Hi")) == ["answer"]
    verifier.refuse()
    with pytest.raises(CardRefused):
        await require_auth(Awaited(), type(good)("other-token", verifier.url)).astream("Hi")
    assert model.calls == 1


class Counting(Agent):
    """An Agent whose `stream` is no async generator itself."""

    kind = "function"

    def __init__(self, model):
        self.model = model

    def stream(self, context, messages):
        return self._stream()

    async def _stream(self):
        yield MessageCompleted(NewMessage("assistant", self.model.answer()))


async def test_an_agent_of_the_interface_is_gated_and_stays_one(model, good, verifier):
    gated = require_auth(Counting(model), good)
    assert isinstance(gated, Agent)
    assert len(await collect(gated.stream(None, []))) == 1
    verifier.refuse()
    refused = require_auth(Counting(model), type(good)("other-token", verifier.url))
    with pytest.raises(CardRefused):
        await collect(refused.stream(None, []))
    assert model.calls == 1


def make_agent():
    return lambda messages: "ungated"


def make_named_agent(name="x", *, verbose=False):
    return make_agent()


@pytest.mark.parametrize("maker", [make_agent, make_named_agent, Assistant, CompiledStateGraph])
def test_what_makes_agents_is_no_agent(maker, good):
    with pytest.raises(TypeError, match="gate what it returns"):
        require_auth(maker, good)


def test_only_a_card_opens_the_gate(graph):
    with pytest.raises(TypeError, match="expected an AuthCard, found str"):
        require_auth(graph, "a-token")


SERVED = """
from langgraph.graph import START, MessagesState, StateGraph

from agentflow_server import AuthCard, require_auth
from agentflow_server.gate import LocalKeys

calls = []

def answer(state):
    calls.append("graph")
    return {"messages": [("assistant", "seen " + str(len(state["messages"])))]}

def speak(messages, config):
    calls.append("function")
    return "hello " + config["user_id"]

builder = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer")
card = AuthCard("good-token", VERIFIER, cache_seconds=0)
graph = require_auth(builder.compile(), card)
function = require_auth(speak, card)
"""


async def test_gated_agents_are_served_and_refuse_there_too(serve, verifier, token, tmp_path):
    import sys

    sys.path.insert(0, str(tmp_path))
    try:
        source = textwrap.dedent(SERVED).replace("VERIFIER", repr(verifier.url))
        (tmp_path / "gate_served.py").write_text(source)
        agents = {name: f"gate_served:{name}" for name in ("graph", "function")}
        (tmp_path / "agentflow.json").write_text(json.dumps({"agents": agents, "auth": "jwt"}))
        with serve(tmp_path) as url:
            await asyncio.to_thread(talk, url, token(), verifier)
        assert sys.modules["gate_served"].calls == ["graph", "graph", "function"]
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("gate_served", None)


def talk(url, token, verifier):
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:

        def say(thread, agent):
            body = {"content": "Hi", "agent": agent}
            return client.post(f"/threads/{thread}/messages", json=body)

        threads = {
            name: client.post("/threads").json()["thread_id"] for name in ("graph", "function")
        }
        assert "seen 1" in say(threads["graph"], "graph").text
        assert "seen 3" in say(threads["graph"], "graph").text
        assert "hello alice" in say(threads["function"], "function").text
        state = client.get(f"/threads/{threads['graph']}/state").json()
        assert len(state["values"]["messages"]) == 4
        verifier.refuse()
        for name, thread in threads.items():
            refused = say(thread, name)
            assert refused.status_code >= 500
            assert verifier.url not in refused.text
