"""Graphs of 10xgraph as agents; they need Python 3.12 and the extra `tenxgraph`."""

import asyncio
import json
import logging
from contextlib import aclosing
from itertools import pairwise

import pytest

pytest.importorskip("tenxgraph", reason="10xgraph is not installed; it needs Python >= 3.12")

from injectq import InjectQ
from tenxgraph.core.graph import StateGraph, ToolNode
from tenxgraph.core.state import AgentState, Message, TextBlock
from tenxgraph.core.state.execution_state import ExecutionStatus
from tenxgraph.core.state.message_block import ImageBlock, ReasoningBlock
from tenxgraph.core.state.stream_emitter import StreamEmitter
from tenxgraph.runtime.adapters.llm.base_converter import BaseConverter
from tenxgraph.runtime.adapters.llm.model_response_converter import (
    ModelResponseConverter,
)
from tenxgraph.storage.checkpointer import InMemoryCheckpointer, SqliteCheckpointer
from tenxgraph.utils import END
from tenxgraph.utils.interrupt import interrupt

from agentflow_server.adapters import open_agents
from agentflow_server.adapters.tenxgraph import (
    NO_RESULT,
    TenxGraphAgent,
    find_conflicts,
)
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import (
    CustomEvent,
    MessageCompleted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from agentflow_server.models import NewMessage
from agentflow_server.testing.agents import AgentSuite


def builder_of(*nodes, container=None, state=None):
    builder = StateGraph(state, container=container or InjectQ())
    for node in nodes:
        builder.add_node(node.__name__, node)
    for one, following in pairwise(nodes):
        builder.add_edge(one.__name__, following.__name__)
    builder.add_edge(nodes[-1].__name__, END)
    return builder.set_entry_point(nodes[0].__name__)


def graph_of(*nodes, container=None, state=None, **options):
    return builder_of(*nodes, container=container, state=state).compile(**options)


@pytest.fixture
async def open_graph(talk):
    agents = []

    async def open_graph(graph):
        agents.append(TenxGraphAgent(graph, name="main"))
        await agents[-1].open()
        return talk(agents[-1])

    yield open_graph
    for agent in agents:
        await agent.close()


def count(state: AgentState):
    """Says how many messages it sees and repeats the last one."""
    return Message.text_message(f"{len(state.context)}: {state.context[-1].text()}", "assistant")


def says(text):
    return MessageCompleted(NewMessage("assistant", text))


def function_call(name, call_id, **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


async def add_numbers(a: int, b: int, emit: StreamEmitter | None = None) -> str:
    """Add two numbers."""
    if emit:
        emit.progress("adding", data={"step": 1})
        await asyncio.sleep(0)
    return str(a + b)


async def explode() -> str:
    """Fail."""
    raise LookupError("the tool's own")


def calculator(*answers):
    """Its model says what it was told to say, and refuses unanswered tool calls."""
    left = list(answers)

    async def think(state: AgentState):
        for message in state.context:
            answered = {
                b.call_id for m in state.context for b in m.content if b.type == "tool_result"
            }
            assert {call["id"] for call in message.tools_calls or []} <= answered
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    builder = StateGraph(container=InjectQ())
    builder.add_node("think", think)
    builder.add_node("tools", ToolNode([add_numbers, explode]))
    builder.set_entry_point("think")
    builder.add_conditional_edges(
        "think",
        lambda state: "tools" if state.context[-1].tools_calls else END,
        {"tools": "tools", END: END},
    )
    builder.add_edge("tools", "think")
    return builder.compile()


def with_calls(*calls):
    message = Message.text_message("", role="assistant")
    message.tools_calls = list(calls)
    return message


async def test_a_graph_answers(open_graph):
    talk = await open_graph(graph_of(count))
    assert await talk.say("Hi") == [says("1: Hi")]


async def test_the_graph_remembers_each_thread_for_itself(open_graph):
    talk = await open_graph(graph_of(count))
    assert talk.agent.remembers
    assert [await talk.ask("Hi"), await talk.ask("Hi"), await talk.ask("Hi", "other")] == [
        "1: Hi",
        "3: Hi",
        "1: Hi",
    ]


async def test_forgetting_deletes_one_thread_and_may_be_repeated(open_graph):
    talk = await open_graph(graph_of(count))
    await talk.say("Hi")
    await talk.say("Hi", "other")
    await talk.agent.forget("t1")
    await talk.agent.forget("t1")
    assert await talk.ask("Hi") == "1: Hi"
    assert await talk.ask("Hi", "other") == "3: Hi"


class Scores(AgentState):
    score: int = 0


async def test_a_state_of_its_own_lasts_from_turn_to_turn(open_graph):
    def score(state: Scores):
        state.score += 1
        state.context.append(Message.text_message(str(state.score), "assistant"))
        return state

    talk = await open_graph(graph_of(score, state=Scores()))
    assert [await talk.ask("Hi"), await talk.ask("Hi")] == ["1", "2"]


class Words(BaseConverter):
    """A model that streams words."""

    async def convert_response(self, response):
        return Message.text_message(" ".join(response), "assistant")

    async def convert_streaming_response(self, config, node_name, response, meta=None):
        for word in response:
            yield Message(role="assistant", content=[TextBlock(text=word)], delta=True)
        yield Message(
            role="assistant",
            content=[ReasoningBlock(summary="hidden"), TextBlock(text="".join(response))],
        )


async def test_a_model_is_heard_while_it_writes(open_graph):
    async def write(state: AgentState):
        async def respond():
            return ["Hel", "lo"]

        return ModelResponseConverter(respond, Words())

    talk = await open_graph(graph_of(write))
    assert await talk.say("Hi") == [TextDelta("Hel"), TextDelta("lo"), says("Hello")]


async def test_a_tool_is_seen_from_its_call_to_the_answer(open_graph):
    call = function_call("add_numbers", "c1", a=1, b=2)
    talk = await open_graph(calculator(with_calls(call), "three"))
    progress = CustomEvent(
        {
            "tool_name": "add_numbers",
            "tool_call_id": "c1",
            "node": "tools",
            "step": 1,
            "status": "tool_progress",
            "message": "adding",
        }
    )
    assert await talk.say("1 + 2") == [
        MessageCompleted(NewMessage("assistant", "", {"tool_calls": [call]})),
        ToolStarted("add_numbers", "c1", {"a": 1, "b": 2}),
        progress,
        ToolCompleted("add_numbers", "c1", "3"),
        MessageCompleted(NewMessage("tool", "3", {"tool_call_id": "c1", "name": "add_numbers"})),
        says("three"),
    ]


async def test_a_tool_that_fails_is_seen_too(open_graph):
    talk = await open_graph(calculator(with_calls(function_call("explode", "c1")), "sorry"))
    events = await talk.say("Hi")
    assert ToolStarted("explode", "c1", {}) in events
    assert any(isinstance(e, ToolCompleted) and "the tool's own" in e.result for e in events)
    assert [m.role for m in talk.completed(events)] == ["assistant", "tool", "assistant"]


async def test_pictures_pass_in_both_directions(open_graph):
    def describe(state: AgentState):
        picture = state.context[-1].content[1]
        return Message(role="assistant", content=[TextBlock(text="this:"), picture])

    talk = await open_graph(graph_of(describe))
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://x.test/1.png"}},
    ]
    text, picture = await talk.ask(parts)
    assert text["text"] == "this:"
    assert ImageBlock.model_validate(picture).media.url == "https://x.test/1.png"


async def test_a_part_that_10xgraph_does_not_know_is_an_error(open_graph):
    talk = await open_graph(graph_of(count))
    with pytest.raises(ValueError, match="cannot take a part of the type 'hologram'"):
        await talk.say([{"type": "hologram"}])


# Claims


async def test_claims_and_caller_are_in_the_config(open_graph):
    def show(state: AgentState, config: dict):
        shown = {key: config.get(key) for key in ("roles", "user", "user_id", "thread_id")}
        return Message.text_message(json.dumps(shown), "assistant")

    talk = await open_graph(graph_of(show))
    claims = {"user_id": "alice", "roles": ["admin"]}
    assert json.loads(await talk.ask("Hi", claims=claims)) == {
        "roles": ["admin"],
        "user": claims,
        "user_id": "alice",
        "thread_id": "t1",
    }
    anonymous = json.loads(await talk.ask("Hi", "t2", user=""))
    assert anonymous == {"roles": None, "user": {}, "user_id": "anonymous", "thread_id": "t2"}


async def test_hostile_claims_neither_override_nor_break_anything(open_graph, hostile_claims):
    seen = []

    def look(state: AgentState, config: dict):
        seen.append(dict(config))
        return "fine"

    talk = await open_graph(graph_of(look))
    assert await talk.ask("Hi", claims=hostile_claims, client={"recursion_limit": 7}) == "fine"
    config = seen[0]
    assert config["user"] == {k: v for k, v in hostile_claims.items() if k != "authz"}
    assert "authz" not in config
    assert "resume_data" not in config
    assert "__x" not in config
    assert config["thread_id"] == "t1"
    assert config["user_id"] == "alice"
    assert config["recursion_limit"] == 7
    assert config["is_stream"] is True
    assert config["timestamp"] != "1970-01-01"
    assert config["_node_name"] == "look"
    assert config["roles"] == ["reader"]


async def test_many_turns_at_once_never_mix(open_graph):
    async def show(state: AgentState, config: dict):
        await asyncio.sleep(0)
        return f"{config['thread_id']} {config['secret']} {state.context[-1].text()}"

    talk = await open_graph(graph_of(show))
    answers = await asyncio.gather(
        *(talk.ask(f"q{n}", f"t{n}", claims={"secret": f"s{n}"}) for n in range(20))
    )
    assert answers == [f"t{n} s{n} q{n}" for n in range(20)]


async def test_a_memory_of_one_process_is_refused_where_several_execute_runs():
    class Shared(InMemoryCheckpointer):
        """As far as anybody knows."""

    with pytest.raises(ConfigError, match=r"with PostgreSQL any process .* PgCheckpointer"):
        TenxGraphAgent(graph_of(count), name="main", distributed=True)
    TenxGraphAgent(graph_of(count, checkpointer=Shared()), name="main", distributed=True)


async def test_two_graphs_at_once_use_their_own_checkpointers(open_graph):
    one, two = InMemoryCheckpointer(), InMemoryCheckpointer()
    first = await open_graph(graph_of(count, checkpointer=one))
    second = await open_graph(graph_of(count, checkpointer=two))
    await asyncio.gather(first.say("Hi", "t1"), second.say("Hi", "t2"))
    for own, other, thread in ((one, two, "t1"), (two, one, "t2")):
        assert await own.aget_state({"thread_id": thread}) is not None
        assert await other.aget_state({"thread_id": thread}) is None


# Trouble


async def test_cancelling_stops_the_node_and_the_thread_stays_usable(open_graph, in_background):
    reached, stopped = asyncio.Event(), asyncio.Event()

    async def hang(state: AgentState):
        if state.context[-1].text() == "hang":
            try:
                reached.set()
                await asyncio.Event().wait()
            finally:
                stopped.set()
        return "done"

    talk = await open_graph(graph_of(hang))
    async with in_background(talk.stream("hang")):
        await asyncio.wait_for(reached.wait(), 10)
    assert stopped.is_set()
    assert await talk.say("Hi") == [says("done")]


async def test_a_turn_that_failed_does_not_break_the_thread(open_graph):
    """10xgraph would go on at the node that failed, with a tool call that nobody answered."""
    call = function_call("add_numbers", "c1", a=1, b=2)
    talk = await open_graph(
        calculator(with_calls(call), LookupError("the model's own"), with_calls(call), "fine")
    )
    with pytest.raises(Exception, match="the model's own"):
        await talk.say("1 + 2")
    assert (await talk.say("Hi"))[-1] == says("fine")


async def test_a_tool_call_that_was_never_answered_is_answered(open_graph):
    reached = asyncio.Event()

    async def hang(state: AgentState):
        if state.context[-1].tools_calls:
            reached.set()
            raise LookupError("between the call and its result")
        return "fine"

    def ask(state: AgentState):
        if state.context[-1].text() == "call":
            return with_calls(function_call("add_numbers", "c1", a=1, b=2))
        return None

    checkpointer = InMemoryCheckpointer()
    talk = await open_graph(graph_of(ask, hang, checkpointer=checkpointer))
    with pytest.raises(Exception, match="between the call"):
        await talk.say("call")
    state = await checkpointer.aget_state({"thread_id": "t1"})
    assert [message.role for message in state.context] == ["user", "assistant", "tool"]
    assert state.context[-1].text() == NO_RESULT


async def test_a_thread_survives_its_recursion_limit(open_graph):
    def again(state: AgentState):
        return "again"

    builder = builder_of(again)
    builder.edges.clear()
    builder.set_entry_point("again")
    builder.add_conditional_edges(
        "again",
        lambda state: END if state.context[-1].text() == "stop" else "again",
        {"again": "again", END: END},
    )
    talk = await open_graph(builder.compile())
    for _ in range(2):
        with pytest.raises(Exception, match=r"ErrorBlock|recursion limit"):
            await talk.say("Hi", client={"recursion_limit": 3})


async def test_what_was_said_before_a_question_is_not_said_again(open_graph):
    def ask(state: AgentState):
        return f"said {interrupt({'about': state.context[-1].text()})}"

    talk = await open_graph(graph_of(count, ask))
    asked = await talk.say("Hi")
    assert (talk.texts(asked), talk.asked(asked)) == (["1: Hi"], [{"about": "1: Hi"}])
    answered = await talk.answer({"sure": True})
    assert (talk.texts(answered), talk.asked(answered)) == (["said {'sure': True}"], [])
    assert talk.asked(await talk.say("again")) == [{"about": "4: again"}]


async def test_a_question_shows_its_text_and_the_form_of_its_answer(open_graph):
    def ask(state: AgentState):
        return str(interrupt(7, message="Refund 7?", response_schema={"type": "boolean"}))

    talk = await open_graph(graph_of(ask))
    assert talk.asked(await talk.say("Hi")) == [
        {"value": 7, "message": "Refund 7?", "response_schema": {"type": "boolean"}}
    ]
    for value in (True, False, None, "", 0, [], {"resume": 1}):
        assert talk.texts(await talk.answer(value)) == [str(value)]
        await talk.say("Hi")


async def test_a_node_may_ask_twice_and_forgets_its_answers_with_the_turn(open_graph):
    def ask(state: AgentState):
        return f"{interrupt('first')} and {interrupt('second')}"

    talk = await open_graph(graph_of(ask))
    for _ in range(2):
        assert talk.asked(await talk.say("Hi")) == ["first"]
        assert talk.asked(await talk.answer("one")) == ["second"]
    assert talk.texts(await talk.answer("two")) == ["one and two"]


@pytest.mark.parametrize(
    ("where", "before", "after"),
    [
        ("interrupt_before", ["1: Hi"], ["second {'ok': True}", "third"]),
        ("interrupt_after", ["1: Hi", "second None"], ["third"]),
    ],
)
async def test_a_graph_that_stops_at_a_node_waits_for_leave(open_graph, where, before, after):
    def second(state: AgentState, config: dict):
        return f"second {config.get('resume_data', {}).get('value')}"

    def third(state: AgentState):
        return "third"

    talk = await open_graph(graph_of(count, second, third, **{where: ["second"]}))
    stopped = await talk.say("Hi")
    assert (talk.texts(stopped), talk.asked(stopped)) == (before, [None])
    assert ":second:" in stopped[-1].interrupts[0].interrupt_id
    assert talk.texts(await talk.answer({"ok": True})) == after


async def test_an_answer_changes_nothing_but_what_was_asked(open_graph):
    def second(state: Scores):
        return f"score {state.score}"

    talk = await open_graph(graph_of(count, second, state=Scores(), interrupt_before=["second"]))
    await talk.say("Hi")
    said = await talk.answer({"state": {"score": 99}, "messages": ["x"], "resume": 1})
    assert talk.texts(said) == ["score 0"]


async def test_a_tool_of_the_client_is_a_question(open_graph):
    tools = ToolNode([])
    tools.set_remote_tool([{"function": {"name": "locate"}}])
    call = {"id": "c1", "function": {"name": "locate", "arguments": '{"precise": true}'}}

    async def think(state: AgentState):
        if state.context[-1].role == "tool":
            return f"you are in {state.context[-1].text()}"
        return with_calls(call)

    builder = StateGraph(container=InjectQ())
    builder.add_node("think", think)
    builder.add_node("tools", tools)
    builder.set_entry_point("think")
    builder.add_conditional_edges(
        "think",
        lambda state: "tools" if state.context[-1].tools_calls else END,
        {"tools": "tools", END: END},
    )
    builder.add_edge("tools", "think")
    talk = await open_graph(builder.compile())
    asked = await talk.say("where am I?")
    assert talk.asked(asked) == [call]
    assert talk.texts(await talk.answer("Oslo"))[-1] == "you are in Oslo"


async def test_who_answers_what_is_no_longer_asked_is_told(open_graph):
    def ask(state: AgentState):
        return interrupt("sure?")

    talk = await open_graph(graph_of(ask))
    await talk.say("Hi")
    run = talk._runs["t1"]
    await talk.say("Hi again")
    talk._runs["t1"] = run
    with pytest.raises(RuntimeError, match="something else"):
        await talk.answer("yes")
    await talk.agent.forget("t1")
    run.asked = []
    with pytest.raises(RuntimeError, match="no longer waits"):
        await talk.answer()


async def test_an_undone_run_is_forgotten(open_graph):
    talk = await open_graph(graph_of(count))
    await talk.agent.undo("t1", "never begun")
    await talk.say("one")
    await talk.say("two")
    for _ in range(2):
        await talk.undo()
    assert await talk.ask("three") == "3: three"


async def test_a_waiting_run_can_be_undone(open_graph):
    def ask(state: AgentState):
        return interrupt("sure?")

    talk = await open_graph(graph_of(count, ask))
    await talk.say("one")
    await talk.undo()
    assert talk.texts(await talk.say("two")) == ["1: two"]


async def test_a_checkpointer_that_fails_hides_nothing(open_graph, caplog):
    class Broken(InMemoryCheckpointer):
        async def aput_state_cache(self, config, state):
            raise LookupError("the database is gone")

    talk = await open_graph(graph_of(count, checkpointer=Broken()))
    with pytest.raises(LookupError, match="the database is gone"):
        await talk.say("Hi")
    assert "cannot be settled" in caplog.text


async def test_a_turn_that_ends_before_there_is_a_state_leaves_nothing(open_graph):
    checkpointer = InMemoryCheckpointer()
    talk = await open_graph(graph_of(count, checkpointer=checkpointer))
    async with aclosing(talk.stream("Hi")):
        pass
    assert await checkpointer.aget_state({"thread_id": "t1"}) is None


async def test_a_checkpointer_that_knows_no_owners_can_forget(open_graph):
    class Ownerless(InMemoryCheckpointer):
        async def aget_thread_owner(self, thread_id):
            raise NotImplementedError

    talk = await open_graph(graph_of(count, checkpointer=Ownerless()))
    await talk.say("Hi")
    await talk.agent.forget("t1")
    assert await talk.ask("Hi") == "1: Hi"


async def test_a_turn_after_a_crash_starts_at_the_beginning(open_graph):
    def second(state: AgentState):
        return "second"

    checkpointer = InMemoryCheckpointer()
    talk = await open_graph(graph_of(count, second, checkpointer=checkpointer))
    await talk.say("Hi")
    state = await checkpointer.aget_state({"thread_id": "t1"})
    state.set_current_node("second")
    state.execution_meta.status = ExecutionStatus.RUNNING
    await checkpointer.aput_state_cache({"thread_id": "t1"}, state)
    assert await talk.say("again") == [says("4: again"), says("second")]


async def test_a_conversation_goes_on_after_a_restart(tmp_path, talk):
    pytest.importorskip("aiosqlite", reason="10xgraph's SqliteCheckpointer needs aiosqlite")
    from tenxgraph.storage.checkpointer.sqlite_checkpointer import SqliteCheckpointer

    for expected in ("1: Hi", "3: Hi"):
        checkpointer = SqliteCheckpointer(db_path=str(tmp_path / "graph.db"))
        agent = TenxGraphAgent(graph_of(count, checkpointer=checkpointer), name="main")
        await agent.open()
        assert await talk(agent).ask("Hi") == expected
        await agent.close()


class TestSuite(AgentSuite):
    @pytest.fixture
    def agent(self):
        def echo(state: AgentState):
            return f"You said {state.context[-1].text()}"

        return TenxGraphAgent(graph_of(echo), name="main")

    @pytest.fixture
    def asking_agent(self):
        def ask(state: AgentState):
            return interrupt("with what?")

        return TenxGraphAgent(graph_of(ask), name="main")


async def test_a_question_outlives_the_server(tmp_path, talk):
    pytest.importorskip("aiosqlite", reason="its durable checkpointer needs it")

    def ask(state: AgentState):
        return f"said {interrupt('sure?')}"

    async def start():
        checkpointer = SqliteCheckpointer(tmp_path / "state.db")
        agent = TenxGraphAgent(graph_of(count, ask, checkpointer=checkpointer), name="main")
        await agent.open()
        return agent

    conversation = talk(await start())
    assert conversation.asked(await conversation.say("Hi")) == ["sure?"]
    await conversation.agent.close()
    conversation.agent = await start()
    assert conversation.texts(await conversation.answer("yes")) == ["said yes"]
    await conversation.agent.close()


async def test_what_a_checkpointer_still_caches_is_forgotten_too(open_graph):
    class Caching(InMemoryCheckpointer):
        async def aclear_state(self, config):
            self._states.clear()

        async def aclean_thread(self, config):
            pass

    talk = await open_graph(graph_of(count, checkpointer=Caching()))
    await talk.say("Hi")
    await talk.agent.forget("t1")
    assert await talk.ask("Hi") == "1: Hi"


# Start-up


async def test_a_graph_that_is_not_compiled_is_refused():
    with pytest.raises(ConfigError, match=r"found StateGraph: call .compile\(\)"):
        TenxGraphAgent(builder_of(count), name="main")


async def test_memory_that_a_restart_loses_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING, "agentflow_server"):
        TenxGraphAgent(graph_of(count), name="main")
    assert "forgets every conversation when the server stops" in caplog.text


async def test_graphs_that_would_write_into_each_others_checkpointer_are_refused():
    shared, same = InjectQ(), InMemoryCheckpointer()
    agents = {
        name: TenxGraphAgent(graph_of(count, container=container, checkpointer=saver), name=name)
        for name, container, saver in (
            ("one", shared, same),
            ("two", shared, same),
            ("three", shared, InMemoryCheckpointer()),
            ("four", InjectQ(), InMemoryCheckpointer()),
        )
    }
    problems = find_conflicts(agents)
    assert len(problems) == 2
    assert "'one' and 'three'" in problems[0]
    assert "StateGraph(container=InjectQ())" in problems[0]


SERVED = """
from injectq import InjectQ
from tenxgraph.core.graph import StateGraph
from tenxgraph.utils import END

def echo(state):
    return "echo"

def build():
    builder = StateGraph()
    builder.add_node("echo", echo)
    builder.add_edge("echo", END)
    return builder.set_entry_point("echo").compile()

one, two = build(), build()
thing = object()
"""


async def test_the_adapter_is_chosen_and_its_limits_are_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "served_tenx.py").write_text(SERVED, encoding="utf-8")
    agents = open_agents({"one": "served_tenx:one"}, database=None)
    assert agents["one"].kind == "tenxgraph"
    with pytest.raises(ConfigError, match="share a container"):
        open_agents({"one": "served_tenx:one", "two": "served_tenx:two"}, database=None)
    with pytest.raises(ConfigError, match=r"checkpointer: .* pass it to the graph's compile\(\)"):
        open_agents({"one": "served_tenx:one"}, database=None, checkpointer="served_tenx:thing")


async def test_the_adapter_knows_whether_processes_share_the_database(tmp_path, monkeypatch):
    pytest.importorskip("psycopg")
    from agentflow_server.stores.postgres import PostgresStore

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "served_tenx_2.py").write_text(SERVED, encoding="utf-8")
    with pytest.raises(ConfigError, match="the memory of an InMemoryCheckpointer"):
        open_agents({"one": "served_tenx_2:one"}, database=PostgresStore("postgresql://"))
