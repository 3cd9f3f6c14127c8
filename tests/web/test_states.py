"""The states of a LangGraph thread, over real HTTP."""

import pytest

GRAPH = """
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

def think(state):
    return {"messages": [("ai", "thought")]}

def ask(state):
    return {"messages": [("ai", "told " + str(interrupt({"ok": "?"})))]}

builder = StateGraph(MessagesState)
builder.add_node("think", think)
builder.add_node("ask", ask)
builder.add_edge(START, "think")
builder.add_edge("think", "ask")
app = builder.compile()
"""


@pytest.fixture
async def asked(serve, new_thread, as_user):
    """A client, a header, and the URL of an interrupted thread and run."""
    client = await serve(GRAPH, auth="jwt")
    alice = {"headers": as_user("alice", secret_claim="canary-4711")}
    thread_id = await new_thread(client, **alice)
    url = f"/threads/{thread_id}"
    answer = await client.post(f"{url}/messages", json={"content": "hello"}, **alice)
    assert answer.json()["status"] == "interrupted", answer.text
    return client, alice, url, f"{url}/runs/{answer.json()['run_id']}"


async def test_the_state_tells_what_the_graph_knows_and_waits_for(asked):
    client, alice, url, _ = asked
    answer = await client.get(f"{url}/state", **alice)
    state = answer.json()
    assert [m["content"] for m in state["values"]["messages"]] == ["hello", "thought"]
    assert state["next"] == ["ask"]
    assert state["interrupts"][0]["value"] == {"ok": "?"}
    assert "canary-4711" not in answer.text, "claims are no part of a state"


async def test_the_history_is_paged_newest_first(asked):
    client, alice, url, _ = asked
    newest = (await client.get(f"{url}/state", **alice)).json()["checkpoint_id"]
    everything = (await client.get(f"{url}/history", **alice)).json()
    ids = [state["checkpoint_id"] for state in everything["data"]]
    assert (ids[0], everything["next_cursor"]) == (newest, None)
    assert len(ids) > 2
    found, cursor = [], None
    while True:
        parameters = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"{url}/history", params=parameters, **alice)).json()
        found += [state["checkpoint_id"] for state in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ids


async def test_r41_a_stranger_finds_no_state(asked, as_user):
    client, alice, url, _ = asked
    for path in ("state", "history"):
        assert (await client.get(f"{url}/{path}", **alice)).status_code == 200
        answer = await client.get(f"{url}/{path}", headers=as_user("bob"))
        assert answer.status_code == 404


async def test_the_answer_reaches_the_graph(asked):
    client, alice, url, run_url = asked
    answer = await client.post(f"{run_url}/resume", json={"value": "yes"}, **alice)
    assert answer.json()["message"]["content"] == "told yes"
    messages = (await client.get(f"{url}/messages", **alice)).json()["data"]
    assert [m["content"] for m in messages] == ["hello", "thought", "told yes"]
    state = (await client.get(f"{url}/state", **alice)).json()
    assert (state["next"], state["interrupts"]) == ([], [])


async def test_an_agent_without_states_has_none_to_show(serve, new_thread):
    client = await serve()
    thread_id = await new_thread(client)
    assert (await client.get(f"/threads/{thread_id}/state")).status_code == 404
    await client.post(f"/threads/{thread_id}/messages", json={"content": "x"})
    assert (await client.get(f"/threads/{thread_id}/history")).status_code == 404
