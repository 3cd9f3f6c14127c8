"""LangGraph graphs as agents."""

import asyncio
import json
import sqlite3
import threading
from contextlib import aclosing
from dataclasses import dataclass
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import Runtime, get_runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Send

from agentflow_server.adapters.langgraph import NO_RESULT, LangGraphAgent
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import (
    CustomEvent,
    MessageCompleted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from agentflow_server.models import NewMessage


def graph_of(*nodes, state=MessagesState, **options):
    """The nodes, one after the other."""
    builder = StateGraph(state)
    builder.add_sequence([(node.__name__, node) for node in nodes])
    builder.add_edge(START, nodes[0].__name__)
    return builder.compile(**options)


async def count(state):
    """Says how many messages it sees and repeats the last one."""
    messages = state["messages"]
    return {"messages": [AIMessage(f"{len(messages)}: {messages[-1].content}")]}


async def show_config(state, config: RunnableConfig):
    shown = {
        key: value for key, value in config["configurable"].items() if not key.startswith("__")
    }
    return {"messages": [AIMessage(json.dumps(shown, default=str))]}


@tool
def add_numbers(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def call(name, call_id="c1", **arguments):
    return {"name": name, "args": arguments, "id": call_id, "type": "tool_call"}


def calculator(*answers, tools=(add_numbers,), checkpointer=None):
    """An agent that calls tools; its model says what it was told to say."""
    answers = iter(answers)

    async def think(state):
        for message in state["messages"]:
            if isinstance(message, AIMessage):
                answered = {m.tool_call_id for m in state["messages"] if m.type == "tool"}
                assert {c["id"] for c in message.tool_calls} <= answered
        answer = next(answers)
        if not answer.tool_calls:  # which the fake model cannot stream
            model = GenericFakeChatModel(messages=iter([answer]))
            answer = await model.ainvoke(state["messages"])
        return {"messages": [answer]}

    builder = StateGraph(MessagesState)
    builder.add_node(think)
    builder.add_node("tools", ToolNode(list(tools), handle_tool_errors=False))
    builder.add_edge(START, "think")
    builder.add_conditional_edges(
        "think", lambda state: "tools" if state["messages"][-1].tool_calls else END
    )
    builder.add_edge("tools", "think")
    return builder.compile(checkpointer=checkpointer)


async def test_a_model_is_heard_token_by_token(open_graph):
    talk = await open_graph(calculator(AIMessage("Hello, my friend")))
    assert await talk.say("Hi") == [
        *(TextDelta(text) for text in ("Hello,", " ", "my", " ", "friend")),
        MessageCompleted(NewMessage("assistant", "Hello, my friend")),
    ]


async def test_a_tool_is_seen_from_its_call_to_the_answer(open_graph):
    talk = await open_graph(
        calculator(AIMessage("", tool_calls=[call("add_numbers", a=1, b=2)]), AIMessage("three"))
    )
    function = {"name": "add_numbers", "arguments": '{"a": 1, "b": 2}'}
    calls = [{"id": "c1", "type": "function", "function": function}]
    assert await talk.say("1 + 2") == [
        MessageCompleted(NewMessage("assistant", "", {"tool_calls": calls})),
        ToolStarted("add_numbers", "c1", {"a": 1, "b": 2}),
        ToolCompleted("add_numbers", "c1", "3"),
        MessageCompleted(NewMessage("tool", "3", {"tool_call_id": "c1", "name": "add_numbers"})),
        TextDelta("three"),
        MessageCompleted(NewMessage("assistant", "three")),
    ]


async def test_a_message_that_no_model_wrote_comes_whole(open_graph):
    talk = await open_graph(graph_of(count))
    assert await talk.say("Hi") == [MessageCompleted(NewMessage("assistant", "1: Hi"))]


async def test_a_graph_without_checkpointer_remembers_in_our_database(open_graph):
    talk = await open_graph(graph_of(count))
    assert talk.agent.remembers
    assert [await talk.ask("Hi"), await talk.ask("Hi"), await talk.ask("Hi", "other")] == [
        "1: Hi",
        "3: Hi",
        "1: Hi",
    ]


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_a_conversation_goes_on_after_the_database_was_reopened(
    open_database, talk, durability
):
    for expected in ("1: Hi", "3: Hi"):
        async with open_database() as store:
            agent = LangGraphAgent(
                graph_of(count), name="main", database=store, durability=durability
            )
            await agent.open()
            assert await talk(agent).ask("Hi") == expected


async def test_forgetting_deletes_one_thread_and_may_be_repeated(open_graph, database, saved_rows):
    talk = await open_graph(graph_of(count))
    await talk.say("Hi", "t1")
    await talk.say("Hi", "t2")
    await talk.agent.forget("t1")
    await talk.agent.forget("t1")
    assert {row[0] for row in await saved_rows(database)} == {"t2"}
    assert await talk.ask("Hi", "t1") == "1: Hi"


async def test_its_own_checkpointer_is_respected(open_graph, database):
    saver = InMemorySaver()
    talk = await open_graph(graph_of(count, checkpointer=saver))
    await talk.say("Hi")
    assert talk.agent.remembers
    assert await talk.ask("Hi") == "3: Hi"
    assert saver.get_tuple({"configurable": {"thread_id": "t1"}}) is not None
    await talk.agent.forget("t1")
    assert await talk.ask("Hi") == "1: Hi"


async def test_a_graph_that_wants_no_checkpointer_gets_the_history(open_graph):
    talk = await open_graph(
        graph_of(count, checkpointer=False),
    )
    assert not talk.agent.remembers
    assert await talk.ask("Hi") == "1: Hi"
    assert await talk.ask("Hi") == "3: Hi"
    await talk.agent.forget("t1")


async def test_a_history_with_tools_is_understood_and_not_repeated(open_graph, talk, database):
    answers = AIMessage("", tool_calls=[call("add_numbers", a=1, b=2)]), AIMessage("three")
    graph = calculator(*answers, AIMessage("four"), checkpointer=False)
    conversation = await open_graph(graph)
    await conversation.say("1 + 2")
    assert conversation.completed(await conversation.say("2 + 2")) == [
        NewMessage("assistant", "four")
    ]


async def test_the_configured_checkpointer_and_store_are_used(open_graph):
    async def remember(state):
        await get_runtime().store.aput(("notes",), "last", {"text": state["messages"][-1].content})

    saver, store = InMemorySaver(), InMemoryStore()
    talk = await open_graph(graph_of(remember), checkpointer=saver, store=store)
    assert await talk.say("Hi") == []
    assert store.get(("notes",), "last").value == {"text": "Hi"}
    assert saver.get_tuple({"configurable": {"thread_id": "t1"}}) is not None


async def test_custom_events_reach_the_client_as_json(open_graph):
    async def report(state):
        get_stream_writer()({"progress": 0.5, "thing": object})

    talk = await open_graph(graph_of(report))
    assert await talk.say("Hi") == [CustomEvent({"progress": 0.5, "thing": "<type>"})]


async def test_content_in_parts_stays_in_parts(open_graph):
    async def describe(state):
        assert state["messages"][0].content == [{"type": "text", "text": "Hi"}]
        return {"messages": [AIMessage(["one", {"type": "image", "url": "https://x.test"}])]}

    talk = await open_graph(graph_of(describe))
    assert await talk.ask([{"type": "text", "text": "Hi"}]) == [
        {"type": "text", "text": "one"},
        {"type": "image", "url": "https://x.test"},
    ]


async def test_a_name_stays_with_its_message(open_graph):
    async def introduce(state):
        return {"messages": [AIMessage("Hi", name="bot"), HumanMessage("not said by the agent")]}

    talk = await open_graph(graph_of(introduce))
    assert talk.completed(await talk.say("Hi")) == [NewMessage("assistant", "Hi", {"name": "bot"})]


class ListState(TypedDict):
    messages: Annotated[list[Any], add]


async def test_a_state_with_another_reducer_and_plain_dicts_is_served(open_graph):
    async def first(state):
        return {"messages": [{"role": "assistant", "content": "one"}]}

    async def second(state):
        return {"messages": [AIMessage("two")]}

    talk = await open_graph(graph_of(first, second, state=ListState))
    for _ in range(2):
        assert [message.content for message in talk.completed(await talk.say("Hi"))] == [
            "one",
            "two",
        ]


async def test_of_two_models_that_write_at_once_one_is_heard(open_graph):
    """Deltas have no sender: two texts at once would become one nonsense."""
    first_word = asyncio.Event()

    async def write(state):
        model = GenericFakeChatModel(messages=iter([AIMessage(state["text"])]))
        chunks = []
        async for chunk in model.astream("go"):
            chunks.append(chunk)
            first_word.set()
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole = whole + chunk
        return {"messages": [AIMessage(whole.content, id=whole.id)]}

    builder = StateGraph(MessagesState)
    builder.add_node(write)
    builder.add_conditional_edges(
        START, lambda state: [Send("write", {"text": f"{n} {n} {n}"}) for n in "ab"], ["write"]
    )
    talk = await open_graph(builder.compile())
    events = await talk.say("Hi")
    assert "".join(talk.text(events)) in {"a a a", "b b b"}
    assert [message.content for message in talk.completed(events)] == ["a a a", "b b b"]


# Claims


async def test_claims_and_caller_are_in_the_configurable(open_graph):
    talk = await open_graph(graph_of(show_config))
    claims = {"user_id": "alice", "roles": ["admin"], "identity": "root"}
    shown = json.loads(await talk.ask("Hi", claims=claims, scopes=frozenset({"b", "a"})))
    assert shown["roles"] == ["admin"]
    assert shown["user"] == claims
    assert shown["user_id"] == "alice"
    assert shown["thread_id"] == "t1"
    assert shown["agent"] == "main"
    assert shown["langgraph_auth_user"] == {**claims, "identity": "alice"}
    assert shown["langgraph_auth_user_id"] == "alice"
    assert shown["langgraph_auth_permissions"] == ["a", "b"]


async def test_a_node_finds_the_caller_in_its_runtime(open_graph):
    async def greet(state, runtime: Runtime):
        user = runtime.server_info.user
        return {"messages": [AIMessage(f"{user.identity} {user.is_authenticated} {user['team']}")]}

    talk = await open_graph(graph_of(greet))
    assert await talk.ask("Hi", claims={"team": "red"}) == "alice True red"
    assert await talk.ask("Hi", user="", claims={"team": ""}) == " False "


async def test_hostile_claims_neither_override_nor_break_anything(open_graph, hostile_claims):
    seen = []

    async def look(state, config: RunnableConfig):
        seen.append(config)
        return {"messages": [AIMessage("fine")]}

    talk = await open_graph(graph_of(look))
    assert await talk.ask("Hi", claims=hostile_claims) == "fine"
    configurable = seen[0]["configurable"]
    assert configurable["user"] == hostile_claims
    assert configurable["thread_id"] == "t1"
    assert configurable["checkpoint_ns"].startswith("look:")
    assert configurable["langgraph_auth_user_id"] == "alice"
    assert configurable["langgraph_auth_user"]["identity"] == "alice"
    assert configurable["langgraph_auth_permissions"] == []
    assert configurable["roles"] == ["reader"]
    assert "configurable" not in configurable
    assert "__x" not in configurable
    assert "langgraph_request_id" not in configurable
    assert seen[0].get("recursion_limit", 1) > 0
    own = {"user", "langgraph_auth_user"}
    passed = {k: v for k, v in configurable.items() if k not in own and not k.startswith("__")}
    assert "stolen" not in str(passed)
    assert "stolen" not in str(seen[0]["metadata"])
    await talk.agent.forget("stolen")
    assert await talk.ask("Hi", claims=hostile_claims) == "fine"


async def test_what_a_client_may_set_reaches_the_graph(open_graph):
    seen = []

    async def look(state, config: RunnableConfig):
        seen.append(config)

    talk = await open_graph(graph_of(look))
    await talk.say("Hi", client={"recursion_limit": 7, "tags": ["beta"], "language": "en"})
    assert seen[0]["recursion_limit"] == 7
    assert "beta" in seen[0]["tags"]
    assert seen[0]["configurable"]["language"] == "en"


async def test_no_claim_is_stored_with_a_checkpoint(open_graph, database, saved_rows):
    talk = await open_graph(graph_of(count))
    context = talk.context(claims={"email": "canary-claim@example.com", "level": 987654321})
    async with aclosing(talk.agent.stream(context, [talk.message("Hi")])) as events:
        assert [event async for event in events]
    stored = str(await saved_rows(database))
    assert "canary" not in stored
    assert "987654321" not in stored
    states = await talk.agent.list_history("t1", limit=9)
    assert [state["metadata"]["run_id"] for state in states] == [context.run_id] * 3


async def test_claims_are_not_in_the_metadata_that_callbacks_see(open_graph):
    seen = []

    class Tracer(BaseCallbackHandler):
        def on_chain_start(self, *args, metadata=None, **kwargs):
            seen.append(metadata)

    graph = graph_of(count).with_config(callbacks=[Tracer()])
    talk = await open_graph(graph)
    await talk.say("Hi", claims={"email": "canary-claim@example.com"})
    assert seen
    assert "canary" not in str(seen)


async def test_many_turns_at_once_never_mix(open_graph):
    talk = await open_graph(graph_of(show_config))
    answers = await asyncio.gather(
        *(talk.ask("Hi", f"t{n}", user=f"u{n}", claims={"secret": f"s{n}"}) for n in range(40))
    )
    for n, answer in enumerate(answers):
        shown = json.loads(answer)
        assert (shown["thread_id"], shown["secret"]) == (f"t{n}", f"s{n}")
        assert shown["langgraph_auth_user_id"] == f"u{n}"


# Trouble


async def test_cancelling_stops_the_node_and_the_thread_stays_usable(open_graph, in_background):
    reached, stopped = asyncio.Event(), asyncio.Event()

    async def hang(state):
        if state["messages"][-1].content == "hang":
            try:
                reached.set()
                await asyncio.Event().wait()
            finally:
                stopped.set()
        return {"messages": [AIMessage(str(len(state["messages"])))]}

    talk = await open_graph(graph_of(hang))
    async with in_background(talk.stream("hang")):
        await asyncio.wait_for(reached.wait(), 10)
    assert stopped.is_set()
    assert await talk.ask("Hi") == "2"


async def test_leaving_in_the_middle_ends_the_run(open_graph):
    talk = await open_graph(calculator(AIMessage("one two three"), AIMessage("again")))
    async with aclosing(talk.stream("Hi")) as events:
        assert await anext(events) == TextDelta("one")
    assert await talk.ask("Hi") == "again"


async def test_a_synchronous_node_does_not_block_the_loop(open_graph):
    loop = asyncio.get_running_loop()
    reached, released = asyncio.Event(), threading.Event()

    def work(state):
        loop.call_soon_threadsafe(reached.set)
        assert released.wait(10)
        return {"messages": [AIMessage("done")]}

    talk = await open_graph(graph_of(work))
    turn = asyncio.create_task(talk.ask("Hi"))
    await asyncio.wait_for(reached.wait(), 10)
    released.set()
    assert await turn == "done"


@tool
def explode() -> str:
    """Fail."""
    raise LookupError("the tool's own")


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver])
async def test_a_tool_call_that_was_never_answered_does_not_break_the_thread(
    open_graph, checkpointer
):
    calls = [call("add_numbers", "c1", a=1, b=2), call("explode", "c2")]
    graph = calculator(
        AIMessage("", tool_calls=calls),
        AIMessage("fine again"),
        tools=[add_numbers, explode],
        checkpointer=checkpointer and checkpointer(),
    )
    talk = await open_graph(graph)
    with pytest.raises(LookupError, match="the tool's own"):
        await talk.say("1 + 2")
    assert talk.completed(await talk.say("Hi")) == [NewMessage("assistant", "fine again")]
    state = await graph_state(talk.agent)
    assert [m.content for m in state if isinstance(m, ToolMessage)] == [NO_RESULT, NO_RESULT]


async def test_only_the_calls_without_a_result_are_answered(open_graph):
    calls = [call("add_numbers", "c1", a=1, b=2), call("add_numbers", "c2", a=1, b=2)]
    talk = await open_graph(calculator(AIMessage("fine")))
    await talk.agent._graph.aupdate_state(
        {"configurable": {"thread_id": "t1"}},
        {"messages": [AIMessage("", tool_calls=calls), ToolMessage("3", tool_call_id="c1")]},
        as_node="tools",
    )
    assert await talk.ask("Hi") == "fine"
    results = [m for m in await graph_state(talk.agent) if isinstance(m, ToolMessage)]
    assert [(m.tool_call_id, m.content) for m in results] == [("c1", "3"), ("c2", NO_RESULT)]


async def graph_state(agent):
    config = {"configurable": {"thread_id": "t1"}}
    return (await agent._graph.aget_state(config)).values["messages"]


# Start-up


class Other(TypedDict):
    question: str


class Input(TypedDict):
    question: str


def with_another_input():
    builder = StateGraph(MessagesState, input_schema=Input)
    builder.add_node(count)
    builder.add_edge(START, "count")
    return builder.compile()


@entrypoint()
async def functional(question: str) -> str:
    return question


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        (StateGraph(MessagesState), r"found StateGraph: call .compile\(\)"),
        (graph_of(count, state=Other), "found Other with question"),
        (with_another_input(), "found Input with question"),
        (functional, "found Pregel"),
        (RunnableLambda(count), "found RunnableLambda"),
    ],
)
async def test_a_graph_that_takes_no_messages_is_refused(database, graph, found):
    with pytest.raises(ConfigError, match='whose state and input have a key "messages"') as failure:
        LangGraphAgent(graph, name="main", database=database)
    assert failure.match(found)


@pytest.mark.parametrize(
    ("options", "settings", "complaint"),
    [
        ({"checkpointer": InMemorySaver()}, {"checkpointer": InMemorySaver()}, "remove one of"),
        ({"checkpointer": False}, {"checkpointer": InMemorySaver()}, "remove one of the two"),
        ({"store": InMemoryStore()}, {"store": InMemoryStore()}, "remove one of the two"),
        ({}, {"checkpointer": "saver"}, "checkpointer: expected a LangGraph checkpointer"),
        ({}, {"store": {}}, "store: expected a LangGraph store, found dict"),
    ],
)
async def test_contradicting_settings_are_refused(database, options, settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        LangGraphAgent(graph_of(count, **options), name="main", database=database, **settings)


async def test_a_checkpointer_without_async_methods_is_refused_at_start_up(open_graph):
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    with pytest.raises(ConfigError, match="SqliteSaver has no async methods"):
        await open_graph(graph_of(count, checkpointer=SqliteSaver(connection)))
    connection.close()


async def test_a_graph_may_be_opened_again(open_graph):
    talk = await open_graph(graph_of(count))
    await talk.agent.open()
    await talk.agent.close()
    assert await talk.ask("Hi") == "1: Hi"


@dataclass
class Basket:
    items: list[str]


class Shop(MessagesState):
    basket: Basket
    other: Any


@dataclass
class Undeclared:
    value: int


async def test_only_declared_types_come_back_from_the_database(open_graph):
    async def shop(state):
        if "basket" not in state:
            return {"basket": Basket(["apple"]), "other": Undeclared(1)}
        kinds = f"{type(state['basket']).__name__} {type(state['other']).__name__}"
        return {"messages": [AIMessage(kinds)]}

    talk = await open_graph(graph_of(shop, state=Shop))
    await talk.say("Hi")
    assert await talk.ask("Hi") == "Basket dict"
