"""A yes is neither lost nor asked for twice when the server is killed."""

import pytest

FUNCTION = """
from agentflow_server import approve

async def app(messages, config):
    said = []
    for action in ("first", "second"):
        said.append((await approve(config, action)).comment)
    return " ".join(said)
"""

GRAPH = """
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

import gate
from agentflow_server import approve

async def work(state, config: RunnableConfig):
    said = []
    for action in ("first", "second"):
        said.append((await approve(config, action)).comment)
        if action == "first":
            gate.pass_through("after the first yes")
    return {"messages": [AIMessage(" ".join(said))]}

app = StateGraph(MessagesState).add_node(work).add_edge(START, "work").compile()
"""


@pytest.mark.parametrize("agent", [FUNCTION, GRAPH], ids=["function", "graph"])
def test_an_approval_outlives_kill_9(agent, write, start, new_thread):
    folder = write({"agent.py": agent})
    server = start(folder)
    thread_id = new_thread(server.http)
    asked = server.http.post(f"/threads/{thread_id}/messages", json={"content": "go"}).json()
    url = f"/threads/{thread_id}/runs/{asked['run_id']}/resume"
    for action, comment in (("first", "one"), ("second", "two")):
        assert [each["value"]["action"] for each in asked["interrupts"]] == [action]
        server.kill()
        server = start(folder)
        (listed,) = server.http.get("/interrupts").json()["data"]
        assert listed["interrupts"] == asked["interrupts"]
        answer = {"value": {"approved": True, "comment": comment}}
        asked = server.http.post(url, json=answer).json()
    assert asked["message"]["content"] == "one two"


def test_a_graph_that_was_killed_after_a_yes_is_not_asked_again(write, start, gate, new_thread):
    folder = write({"agent.py": GRAPH})
    server = start(folder, GATE=gate.port)
    thread_id = new_thread(server.http)
    asked = server.http.post(f"/threads/{thread_id}/messages", json={"content": "go"}).json()
    url = f"/threads/{thread_id}/runs/{asked['run_id']}"
    answer = {"value": {"approved": True, "comment": "one"}, "background": True}
    assert server.http.post(f"{url}/resume", json=answer).status_code == 202
    gate.wait()
    server.kill()
    server = start(folder)
    assert server.http.get(f"{url}/events").text.count("event: interrupt") == 2
    (listed,) = server.http.get("/interrupts").json()["data"]
    assert [each["value"]["action"] for each in listed["interrupts"]] == ["second"]
    answered = server.http.post(f"{url}/resume", json={"value": {"approved": True, "comment": "x"}})
    assert answered.json()["message"]["content"] == "one x"
