"""Approvals over HTTP, server-sent events and WebSockets, in a function and in a graph."""

import json
import logging

import pytest
from websockets.asyncio.client import connect

FUNCTION = """
from agentflow_server import NotApproved, approve

sent = []

async def app(messages, config):
    try:
        approval = await approve(config, "send 3 emails", details={"to": ["bob"]})
    except NotApproved:
        if messages[-1]["content"] == "careful":
            return "not sent"
        raise
    return f"sent, {approval.comment}"
"""

GRAPH = """
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from agentflow_server import NotApproved, approve

async def send(state, config: RunnableConfig):
    try:
        approval = await approve(config, "send 3 emails", details={"to": ["bob"]})
    except NotApproved:
        if state["messages"][-1].content == "careful":
            return {"messages": [AIMessage("not sent")]}
        raise
    return {"messages": [AIMessage(f"sent, {approval.comment}")]}

app = StateGraph(MessagesState).add_node(send).add_edge(START, "send").compile()
"""

QUESTION = {"type": "approval_required", "action": "send 3 emails", "details": {"to": ["bob"]}}
EXPECTED = 'an approval: expected true, false, or {"approved": true or false, "comment": "…"}'


@pytest.fixture(params=[FUNCTION, GRAPH], ids=["function", "graph"])
async def client(request, serve):
    return await serve(request.param)


async def ask(client, thread_id, content="go", **body):
    """What the run answers, and the URL at which it is answered."""
    message = {"content": content, **body}
    asked = await client.post(f"/threads/{thread_id}/messages", json=message)
    assert asked.json()["status"] == "interrupted", asked.text
    return asked.json(), f"/threads/{thread_id}/runs/{asked.json()['run_id']}/resume"


def interrupt_of(text):
    """The data of the event of that name in a stream."""
    (event,) = [each for each in text.split("\n\n") if "event: interrupt" in each]
    return json.loads(event.partition("data: ")[2])["interrupts"]


async def test_everybody_is_shown_the_same_question(client, new_thread):
    thread_id = await new_thread(client)
    asked, _ = await ask(client, thread_id)
    (interrupt,) = asked["interrupts"]
    assert interrupt["value"] == QUESTION
    run_url = f"/threads/{thread_id}/runs/{asked['run_id']}"
    assert (await client.get(run_url)).json()["interrupts"] == [interrupt]
    assert interrupt_of((await client.get(f"{run_url}/events")).text) == [interrupt]
    (listed,) = (await client.get("/interrupts")).json()["data"]
    assert listed["interrupts"] == [interrupt]
    url = f"{client.base_url}".replace("http", "ws", 1).rstrip("/")
    async with connect(f"{url}/threads/{thread_id}/ws", proxy=None) as socket:
        await socket.send(json.dumps({"type": "follow", "run_id": asked["run_id"]}))
        while (frame := json.loads(await socket.recv())).get("event") != "interrupt":
            pass
    assert frame["data"]["interrupts"] == [interrupt]


@pytest.mark.parametrize("answer", [True, {"approved": True, "comment": "fine"}])
async def test_a_yes_lets_the_run_go_on(client, new_thread, answer):
    _, url = await ask(client, await new_thread(client))
    answered = (await client.post(url, json={"value": answer})).json()
    comment = None if answer is True else "fine"
    assert (answered["status"], answered["message"]["content"]) == ("success", f"sent, {comment}")


async def test_a_no_ends_the_run_with_a_code_of_its_own(client, new_thread, caplog):
    thread_id = await new_thread(client)
    asked, url = await ask(client, thread_id)
    with caplog.at_level(logging.INFO, "agentflow_server"):
        refused = await client.post(
            url, json={"value": {"approved": False, "comment": "between us"}}
        )
    assert (refused.status_code, refused.json()["code"]) == (500, "not_approved")
    assert refused.json()["run_id"] == asked["run_id"]
    run = (await client.get(url.removesuffix("/resume"))).json()
    detail = "What the agent wanted to do was not approved"
    assert (run["status"], run["error"]) == ("error", {"code": "not_approved", "detail": detail})
    events = (await client.get(f"{url.removesuffix('/resume')}/events")).text
    assert "between us" not in refused.text + json.dumps(run) + events + caplog.text
    assert "Traceback" not in caplog.text


async def test_an_agent_that_catches_a_no_says_what_it_wants(client, new_thread):
    _, url = await ask(client, await new_thread(client), "careful")
    answered = (await client.post(url, json={"value": False})).json()
    assert (answered["status"], answered["message"]["content"]) == ("success", "not sent")


@pytest.mark.parametrize(
    "answer", ["yes", 1, None, {}, [True], {"approved": "true"}, {"approved": True, "all": True}]
)
async def test_what_is_neither_yes_nor_no_is_refused_and_the_question_stays(
    client, new_thread, answer
):
    asked, url = await ask(client, await new_thread(client))
    by_id = {asked["interrupts"][0]["interrupt_id"]: answer}
    for body in ({"value": answer}, {"answers": by_id}):
        refused = await client.post(url, json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        assert refused.json()["detail"] == EXPECTED
    assert (await client.get("/interrupts")).json()["data"][0]["interrupts"] == asked["interrupts"]
    assert (await client.post(url, json={"value": True})).json()["status"] == "success"
