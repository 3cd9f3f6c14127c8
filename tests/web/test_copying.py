"""Copies of threads, over real HTTP."""

import uuid
from itertools import groupby

import pytest

GRAPH = """
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

def think(state):
    return {"messages": [("ai", "thought " + str(len(state["messages"])))]}

def ask(state):
    if "ask" not in state["messages"][-2].content:
        return {"messages": [("ai", "done")]}
    return {"messages": [("ai", "told " + str(interrupt({"ok": "?"})))]}

builder = StateGraph(MessagesState)
builder.add_node("think", think)
builder.add_node("ask", ask)
builder.add_edge(START, "think")
builder.add_edge("think", "ask")
app = builder.compile(CHECKPOINTER)
"""
GRAPHS = {
    "ours": GRAPH.replace("CHECKPOINTER", ""),
    "in memory": GRAPH.replace("CHECKPOINTER", "checkpointer=InMemorySaver()"),
}

ASKS = """
from agentflow_server import ask

async def app(messages, config):
    if messages[-1]["content"] != "ask":
        return "echo: " + messages[-1]["content"]
    first = await ask(config, "sure?")
    return f"{first} {await ask(config, 'really?')} {config['user']}"
"""

WAITS = """
import asyncio

async def app(messages, config):
    if messages[-1]["content"] == "wait":
        await asyncio.sleep(60)
    return "echo: " + messages[-1]["content"]
"""

WAITING_GRAPH = """
import asyncio
from langgraph.graph import START, MessagesState, StateGraph

async def wait(state):
    await asyncio.sleep(60)

builder = StateGraph(MessagesState)
builder.add_node("wait", wait)
builder.add_edge(START, "wait")
app = builder.compile()
"""

BROKEN_GRAPH = """
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

class Full(InMemorySaver):
    def alist(self, *args, **kwargs):
        raise OSError("no listing: canary-4711")

builder = StateGraph(MessagesState)
builder.add_node("say", lambda state: {"messages": [("ai", "hi")]})
builder.add_edge(START, "say")
app = builder.compile(checkpointer=Full())
"""


class Talker:
    """A client of one server, as one user."""

    def __init__(self, client, **request):
        self.client = client
        self._request = request

    async def post(self, path, status=200, /, **body):
        answer = await self.client.post(path, json=body, **self._request)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def get(self, path, **params):
        answer = await self.client.get(path, params=params, **self._request)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def begin(self, *messages):
        thread_id = (await self.post("/threads"))["thread_id"]
        for message in messages:
            await self.say(thread_id, message)
        return thread_id

    async def say(self, thread_id, content):
        return await self.post(f"/threads/{thread_id}/messages", content=content)

    async def copy(self, source, status=200, /, **body):
        return await self.post(f"/threads/{source}/copy", status, **body)

    async def contents(self, thread_id):
        page = await self.get(f"/threads/{thread_id}/messages", limit=200)
        return [message["content"] for message in page["data"]]

    async def history(self, thread_id):
        """Oldest first."""
        return (await self.get(f"/threads/{thread_id}/history", limit=200))["data"][::-1]

    async def runs(self, thread_id):
        """Oldest first."""
        return (await self.get(f"/threads/{thread_id}/runs"))["data"][::-1]


def said(state):
    return [message["content"] for message in state["values"].get("messages", [])]


@pytest.fixture
async def echo(serve):
    return Talker(await serve())


@pytest.fixture(params=list(GRAPHS))
async def graph(request, serve):
    return Talker(await serve(GRAPHS[request.param]))


async def test_a_copy_has_the_conversation_and_a_life_of_its_own(echo):
    source = await echo.begin("one", "two")
    await echo.client.patch(f"/threads/{source}", json={"name": "Mine", "metadata": {"a": 1}})
    copy = await echo.copy(source, metadata={"b": 2})
    assert copy["thread_id"] != source
    assert (copy["name"], copy["metadata"]) == ("Mine", {"a": 1, "b": 2})
    assert copy == await echo.get(f"/threads/{copy['thread_id']}")
    await echo.say(copy["thread_id"], "three")
    expected = ["one", "echo: one", "two", "echo: two"]
    assert await echo.contents(source) == expected
    assert await echo.contents(copy["thread_id"]) == [*expected, "three", "echo: three"]


async def test_the_body_is_optional_and_an_id_can_be_chosen(echo):
    source, chosen = await echo.begin("one"), str(uuid.uuid4())
    answer = await echo.client.post(f"/threads/{source}/copy")
    assert answer.status_code == 200
    assert (await echo.copy(source, thread_id=chosen))["thread_id"] == chosen
    for taken in (chosen, chosen.upper(), source):
        refused = await echo.copy(source, 409, thread_id=taken)
        assert refused["code"] == "id_taken"
    assert await echo.contents(chosen) == ["one", "echo: one"]


@pytest.mark.parametrize(
    "body",
    [
        {"thread_id": "x"},
        {"checkpoint_id": ""},
        {"checkpoint_id": "\x00"},
        {"checkpoint_id": "ü"},
        {"checkpoint_id": 1},
        {"metadata": 1},
        {"name": "x"},
    ],
)
async def test_bad_bodies_copy_nothing(echo, body):
    source = await echo.begin()
    await echo.copy(source, 422, **body)
    assert len((await echo.get("/threads"))["data"]) == 1


async def test_r41_a_stranger_copies_nothing(serve, as_user):
    client = await serve(auth="jwt")
    alice, bob = [Talker(client, headers=as_user(who)) for who in ("alice", "bob")]
    source = await alice.begin("one")
    await bob.copy(source, 404)
    await bob.copy(str(uuid.uuid4()), 404)
    taken = await bob.begin()
    await alice.copy(source, 409, thread_id=taken)
    assert len((await bob.get("/threads"))["data"]) == 1
    copy = await alice.copy(source)
    assert (await client.get(f"/threads/{copy['thread_id']}", headers=as_user("bob"))).is_error


async def test_a_copied_run_shows_how_it_ended_and_has_no_events(echo):
    source = await echo.begin("one")
    copy = (await echo.copy(source))["thread_id"]
    (old,), (new,) = await echo.runs(source), await echo.runs(copy)
    assert new["run_id"] != old["run_id"]
    assert (new["status"], new["ended_at"]) == ("success", old["ended_at"])
    answer = await echo.client.get(f"/threads/{copy}/runs/{new['run_id']}/events")
    assert (answer.is_success, answer.text) == (True, "")


async def test_a_retry_with_its_key_makes_no_second_copy(echo):
    source = await echo.begin("one")
    headers = {"Idempotency-Key": "k1"}
    url = f"/threads/{source}/copy"
    first, again = [(await echo.client.post(url, headers=headers)).json() for _ in range(2)]
    assert again["thread_id"] == first["thread_id"]
    other = await echo.client.post(url, headers=headers, json={"metadata": {"a": 1}})
    assert other.json()["code"] == "idempotency_mismatch"
    assert len((await echo.get("/threads"))["data"]) == 2


async def test_a_busy_thread_of_a_function_is_copied_without_its_open_turn(serve):
    talker = Talker(await serve(WAITS))
    source = await talker.begin("one")
    run = await talker.post(f"/threads/{source}/messages", 202, content="wait", background=True)
    copy = await talker.copy(source)
    assert copy["status"] == "idle"
    assert await talker.contents(copy["thread_id"]) == ["one", "echo: one"]
    assert (await talker.say(copy["thread_id"], "two"))["message"]["content"] == "echo: two"
    await talker.post(f"/threads/{source}/runs/{run['run_id']}/cancel")


async def test_a_busy_thread_of_a_graph_is_not_copied(serve):
    talker = Talker(await serve(WAITING_GRAPH))
    source, chosen = await talker.begin(), str(uuid.uuid4())
    run = await talker.post(f"/threads/{source}/messages", 202, content="x", background=True)
    refused = await talker.copy(source, 409, thread_id=chosen)
    assert refused["code"] == "thread_busy"
    await talker.post(f"/threads/{source}/runs/{run['run_id']}/cancel")
    assert (await talker.copy(source, thread_id=chosen))["thread_id"] == chosen


async def test_a_function_that_asks_can_be_answered_in_both(serve, as_user):
    alice = Talker(await serve(ASKS, auth="jwt"), headers=as_user("alice", team="tea"))
    source = await alice.begin("ask")
    (run,) = await alice.runs(source)
    await alice.post(f"/threads/{source}/runs/{run['run_id']}/resume", value="first")
    copy = await alice.copy(source)
    assert (copy["status"], copy["interrupts"][0]["value"]) == ("interrupted", "really?")
    for thread_id, value in ((copy["thread_id"], "yes"), (source, "no")):
        (run,) = await alice.runs(thread_id)
        turn = await alice.post(f"/threads/{thread_id}/runs/{run['run_id']}/resume", value=value)
        assert turn["message"]["content"].startswith(f"first {value} ")
        assert "'team': 'tea'" in turn["message"]["content"]
    assert len(await alice.contents(source)) == len(await alice.contents(copy["thread_id"])) == 2


async def test_a_function_has_no_checkpoints(echo):
    source = await echo.begin("one")
    await echo.copy(source, 404, checkpoint_id="1ef4f797-8335-6428-8001-8a1503f9b875")
    assert len((await echo.get("/threads"))["data"]) == 1


# Graphs


async def test_a_graph_remembers_in_the_copy_what_it_knew(graph):
    source = await graph.begin("one", "two")
    copy = (await graph.copy(source))["thread_id"]
    before = await graph.history(source)
    assert [said(state) for state in await graph.history(copy)] == [said(s) for s in before]
    turn = await graph.say(copy, "three")
    assert [m["content"] for m in turn["messages"]] == ["thought 7", "done"]
    assert await graph.history(source) == before
    assert (await graph.client.delete(f"/threads/{source}")).status_code == 204
    assert len(said(await graph.get(f"/threads/{copy}/state"))) == 9


async def test_the_states_of_a_copy_name_its_own_runs(graph):
    source = await graph.begin("one", "two")
    copy = (await graph.copy(source))["thread_id"]
    runs = [run["run_id"] for run in await graph.runs(copy)]
    states = [state["metadata"]["run_id"] for state in await graph.history(copy)]
    assert [run_id for run_id, _ in groupby(states)] == runs


async def test_a_graph_that_asks_can_be_answered_in_both(graph):
    source = await graph.begin("one", "ask")
    copy = await graph.copy(source)
    assert copy["status"] == "interrupted"
    assert len((await graph.get("/interrupts"))["data"]) == 2
    for thread_id, value in ((copy["thread_id"], "yes"), (source, "no")):
        run_id = (await graph.runs(thread_id))[-1]["run_id"]
        url = f"/threads/{thread_id}/runs/{run_id}/resume"
        turn = await graph.post(url, value=value)
        assert [m["content"] for m in turn["messages"]] == [f"told {value}"]
        await graph.post(url, 409, value=value)
        assert (await graph.contents(thread_id))[-3:] == ["ask", "thought 4", f"told {value}"]


async def test_a_copy_ends_where_its_checkpoint_ends(graph):
    """At every checkpoint: the messages and the state tell the same story."""
    source = await graph.begin("one", "two", "three")
    everything = await graph.contents(source)
    for state in await graph.history(source):
        copy = (await graph.copy(source, checkpoint_id=state["checkpoint_id"]))["thread_id"]
        now = await graph.get(f"/threads/{copy}/state") if await graph.runs(copy) else None
        contents = await graph.contents(copy)
        assert contents == everything[: len(contents)]
        if now is None:
            assert (contents, state["metadata"]["source"]) == ([], "input")
            continue
        assert said(now) == said(state)
        # Within a turn the graph knows more answers than the conversation, which has none of it.
        assert len(contents) == len(said(state)) // 3 * 3 + (len(said(state)) % 3 > 0)
        turn = await graph.say(copy, "next")
        assert turn["messages"][0]["content"] == f"thought {len(said(state)) + 1}"
        assert await graph.contents(copy) == [
            *contents,
            "next",
            *[m["content"] for m in turn["messages"]],
        ]


async def test_the_run_of_a_checkpoint_in_the_middle_is_cancelled_in_the_copy(graph):
    source = await graph.begin("one", "two")
    middle = next(s for s in await graph.history(source) if said(s)[-2:] == ["two", "thought 4"])
    copy = (await graph.copy(source, checkpoint_id=middle["checkpoint_id"]))["thread_id"]
    assert [run["status"] for run in await graph.runs(copy)] == ["success", "cancelled"]
    assert await graph.contents(copy) == ["one", "thought 1", "done", "two"]


async def test_a_copy_at_a_checkpoint_asks_nothing(graph):
    source = await graph.begin("ask")
    newest = (await graph.history(source))[-1]
    copy = await graph.copy(source, checkpoint_id=newest["checkpoint_id"])
    assert (copy["status"], copy["interrupts"]) == ("idle", [])
    run_id = (await graph.runs(copy["thread_id"]))[-1]["run_id"]
    refused = await graph.post(
        f"/threads/{copy['thread_id']}/runs/{run_id}/resume", 409, value="yes"
    )
    assert refused["code"] == "not_interrupted"
    assert (await graph.say(copy["thread_id"], "hi"))["status"] == "success"


async def test_a_copy_can_be_copied_wherever_its_own_conversation_goes(graph):
    source = await graph.begin("one", "two")
    end = next(s for s in await graph.history(source) if said(s)[-1:] == ["done"])
    copy = (await graph.copy(source, checkpoint_id=end["checkpoint_id"]))["thread_id"]
    forked = await graph.get(f"/threads/{copy}/state")
    await graph.say(copy, "other")
    first = ["one", "thought 1", "done"]
    for checkpoint in (forked, end):
        again = await graph.copy(copy, checkpoint_id=checkpoint["checkpoint_id"])
        assert await graph.contents(again["thread_id"]) == first
    whole = (await graph.copy(copy))["thread_id"]
    assert await graph.contents(whole) == [*first, "other", "thought 4", "done"]
    beyond = (await graph.history(source))[-1]["checkpoint_id"]
    await graph.copy(copy, 404, checkpoint_id=beyond)


async def test_a_checkpoint_of_another_thread_is_unknown(graph):
    source, other = await graph.begin("one"), await graph.begin("two")
    theirs = (await graph.history(other))[-1]["checkpoint_id"]
    for unknown in (theirs, "1ef4f797-8335-6428-8001-8a1503f9b875", "x"):
        await graph.copy(source, 404, checkpoint_id=unknown)
    assert len((await graph.get("/threads"))["data"]) == 2


async def test_a_checkpointer_that_fails_leaves_no_thread(serve):
    talker = Talker(await serve(BROKEN_GRAPH))
    source, chosen = await talker.begin("one"), str(uuid.uuid4())
    for _ in range(2):
        failed = await talker.copy(source, 500, thread_id=chosen)
        assert "canary-4711" not in str(failed)
    assert len((await talker.get("/threads"))["data"]) == 1
    await talker.post("/threads", thread_id=chosen)
