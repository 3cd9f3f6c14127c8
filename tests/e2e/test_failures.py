"""Failures that other servers have, asked of a real process."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

RAISING = "raise RuntimeError('the directory is down')\n"
DOORS = """
from agentflow_server import BaseAuth

class Auth(BaseAuth):
    def authenticate(self, res, credential):
        return {"user_id": credential.credentials}
"""


def custom(path: str, **more: Any) -> dict[str, Any]:
    return {"method": "custom", "path": path, **more}


@pytest.fixture
def token(secret: str) -> Any:
    def token(user_id: str = "alice", **claims: Any) -> str:
        return jwt.encode({"user_id": user_id, "exp": 4102444800, **claims}, secret, "HS256")

    return token


TYPOS: list[tuple[dict[str, Any], str]] = [
    ({"auth": ..., "Auth": "jwt"}, 'Auth: unknown key – did you mean "auth"?'),
    ({"auth": ..., "authentication": "jwt"}, "authentication: unknown key"),
    ({"auth": ..., "auht": "jwt"}, 'auht: unknown key – did you mean "auth"?'),
    ({"auth": {}}, "auth: expected"),
    ({"auth": ""}, "auth: expected"),
    ({"auth": "jwt"}, "JWT_SECRET_KEY is not set"),
    ({"auth": custom("missing:Auth")}, "auth.path: there is no module 'missing'"),
    ({"auth": custom("doors:Wrong")}, "auth.path: 'doors' has no 'Wrong'"),
    ({"auth": custom("raising:Auth")}, "RuntimeError: the directory is down"),
    ({"checkpointer": "agent:app"}, "checkpointer: agent 'agent' is a function"),
    ({"checkpoint": "agent:app"}, 'checkpoint: unknown key – did you mean "checkpointer"?'),
]


@pytest.mark.parametrize(("config", "line"), TYPOS, ids=[line for _, line in TYPOS])
def test_2_r6_r7_a_config_that_cannot_be_honoured_never_fails_open(config, line, write, refuse):
    refused = refuse(write({"doors.py": DOORS, "raising.py": RAISING}, **config))
    assert any(line in found for found in refused.lines), refused.lines
    assert refused.code == 2
    assert not refused.listened


SHOWING_GRAPH = """
import json
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

KEYS = ("user_id", "roles", "langgraph_auth_user_id", "langgraph_auth_permissions", "user")

def show(state: MessagesState, config: RunnableConfig):
    seen = {key: config["configurable"].get(key) for key in KEYS}
    return {"messages": [{"role": "ai", "content": json.dumps(seen)}]}

app = StateGraph(MessagesState).add_node(show).add_edge(START, "show").compile()
"""
FORGED = {
    "user_id": "root",
    "roles": ["admin"],
    "langgraph_auth_user": {"identity": "root"},
    "langgraph_auth_user_id": "root",
    "langgraph_auth_permissions": ["everything"],
    "configurable": {"user_id": "root"},
    "user": {"user_id": "root"},
}


def test_3_r27_nothing_a_client_sends_changes_who_he_is_in_the_graph(
    write, start, token, new_thread, secret
):
    server = start(write({"agent.py": SHOWING_GRAPH}, auth="jwt"), JWT_SECRET_KEY=secret)
    credential = token(langgraph_auth_user_id="root", langgraph_auth_permissions=["everything"])
    client = server.client(credential)
    url = f"/threads/{new_thread(client)}/messages"
    for key, value in FORGED.items():
        for body in ({key: value}, {"config": {key: value}}):
            refused = client.post(url, json={"content": "Hello", **body})
            assert refused.status_code == 422
            assert key in refused.text
    assert client.post(f"{url}?user_id=root", json={"content": "Hello"}).status_code == 422
    answer = client.post(
        url,
        json={"content": "Hello", "metadata": FORGED},
        headers={"X-User-Id": "root", "X-Forwarded-User": "root", "Cookie": "user_id=root"},
    )
    seen = json.loads(answer.json()["message"]["content"])
    assert (seen["user_id"], seen["roles"], seen["user"]["user_id"]) == ("alice", None, "alice")
    assert seen["langgraph_auth_user_id"] == "alice"
    assert seen["langgraph_auth_permissions"] == []


SLOW_DOORS = """
import asyncio, os
import gate
from agentflow_server import BaseAuth

class Sync(BaseAuth):
    def authenticate(self, res, credential):
        gate.pass_through("door")
        return {"user_id": "alice"}

class Async(BaseAuth):
    async def authenticate(self, res, credential):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["GATE"]))
        writer.write(b"door")
        await reader.read(1)
        writer.close()
        return {"user_id": "alice"}
"""


@pytest.mark.parametrize("backend", ["Sync", "Async"])
def test_4_r46_a_slow_auth_backend_slows_only_those_who_ask_it(backend, write, start, gate):
    auth = custom(f"doors:{backend}", timeout=60)
    server = start(write({"doors.py": SLOW_DOORS}, auth=auth), GATE=gate.port)
    client = server.client("key")
    with ThreadPoolExecutor(45) as pool:
        waiting = [pool.submit(client.get, "/threads") for _ in range(45)]
        held = [gate.wait() for _ in range(40)]
        assert server.http.get("/ping").json() == {"status": "ok"}
        assert server.http.get("/health/ready").status_code == 200
        assert server.http.get("/threads").status_code == 401
        assert not any(answer.done() for answer in waiting)
        for one in held:
            one.let_go()
        for _ in range(5):
            gate.wait().let_go()
        assert {answer.result().status_code for answer in waiting} == {200}


def test_6_r34_a_stranger_is_refused_before_his_megabyte_is_read(write, start, secret):
    server = start(write({}, auth="jwt"), JWT_SECRET_KEY=secret)
    head = (
        f"POST /threads HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1200000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
    assert server.http.post("/threads", content="[" * 500_000).status_code == 401


def test_6_r35_a_megabyte_is_either_refused_or_a_message_like_any_other(
    write, start, new_thread, say, history
):
    server = start(write({}))
    client = server.http
    thread_id = new_thread(client)
    url = f"/threads/{thread_id}/messages"
    assert client.post(url, json={"content": "x" * 1_200_000}).status_code == 413
    many = [{"type": "text", "text": "x"}] * 20_000
    assert client.post(url, json={"content": many}).status_code == 422
    long = "x" * 990_000
    assert say(client, thread_id, long) == f"None: {long}"
    assert say(client, thread_id, "Hello") == "None: Hello"
    assert [len(line) for line in history(client, thread_id)] == [990_005, 990_016, 10, 21]


LEAKING = """
def app(messages, config):
    yield "a word before "
    if "fail" in messages[-1]["content"]:
        raise RuntimeError("postgresql://admin:hunter2@db/prod is down")
"""


def test_7_r8_r38_what_an_exception_says_and_what_a_token_claims_stays_inside(
    write, start, token, new_thread, secret
):
    server = start(write({"agent.py": LEAKING}, auth="jwt"), JWT_SECRET_KEY=secret)
    credential = token(note="canary-claim")
    client = server.client(credential)
    thread_id = new_thread(client)
    url = f"/threads/{thread_id}"
    answers = [
        client.post(f"{url}/messages", json={"content": "please fail"}),
        client.post(f"{url}/messages", json={"content": "please fail", "stream": True}),
        client.post(f"{url}/messages", json={"content": "Hello"}),
    ]
    runs = client.get(f"{url}/runs").json()["data"]
    assert [run["status"] for run in runs] == ["success", "error", "error"]
    for run in runs:
        answers += [
            client.get(f"{url}/runs/{run['run_id']}"),
            client.get(f"{url}/runs/{run['run_id']}/events"),
        ]
    answers += [client.get(path) for path in (url, f"{url}/messages", f"{url}/runs", "/threads")]
    for answer in answers:
        shown = answer.text + str(answer.headers)
        assert not [word for word in ("hunter2", "canary-claim", "Traceback") if word in shown]
    assert answers[0].json()["code"] == "agent_failed"
    assert "event: run.failed" in answers[1].text
    assert server.stop() == 0
    assert server.output.count("RuntimeError: postgresql://admin:hunter2@db/prod") == 2
    assert "canary-claim" not in server.output
    assert credential not in server.output


def test_8_a_401_says_what_is_missing_to_the_one_who_can_mend_it(write, start, token, secret):
    server = start(write({}, auth="jwt"), JWT_SECRET_KEY=secret)
    missing = server.http.get("/threads")
    assert (missing.status_code, missing.json()["detail"]) == (401, "Not authenticated")
    assert missing.headers["www-authenticate"] == "Bearer"
    for_others = server.client(token(aud="another-service")).get("/threads")
    assert for_others.status_code == 401
    assert for_others.json()["detail"] == "Could not validate credentials"
    server.wait_for("name that audience in JWT_AUDIENCE")


FUNCTION_OF_GARBAGE = """
GARBAGE = {
    "nothing": None,
    "number": 7,
    "object": object(),
    "no content": {"role": "assistant"},
    "no role": {"role": None, "content": "x"},
    "strange role": {"role": "alien", "content": "x"},
    "user": [{"role": "user", "content": "x"}],
    "surrogate": "\\ud800",
    "half": ["fine", {"content": {1, 2}}],
}

def app(messages, config):
    return GARBAGE.get(messages[-1]["content"], f"fine, {len(messages)}")
"""
GRAPH_OF_GARBAGE = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

GARBAGE = {
    "nothing": [None],
    "number": [7],
    "object": [object()],
    "no content": [{"role": "assistant"}],
    "no role": [{"content": "x"}],
    "strange role": [{"role": "alien", "content": "x"}],
    "surrogate": [AIMessage("\\ud800")],
    "half": [AIMessage("fine"), object()],
    "not a list": 7,
}

def answer(state: MessagesState):
    wanted = state["messages"][-1].content
    return {"messages": GARBAGE.get(wanted, [AIMessage("fine, ever")])}

app = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
"""
POISONS = ["nothing", "number", "object", "no content", "no role", "strange role"]
POISONS += ["surrogate", "half"]


@pytest.mark.parametrize(
    ("agent", "more"),
    [(FUNCTION_OF_GARBAGE, "user"), (GRAPH_OF_GARBAGE, "not a list")],
    ids=["function", "langgraph"],
)
def test_8_no_garbage_of_an_agent_makes_a_thread_unreadable(
    agent, more, write, start, new_thread, say, history
):
    folder = write({"agent.py": agent})
    server = start(folder)
    thread_id = new_thread(server.http)
    for poison in [*POISONS, more]:
        url = f"/threads/{thread_id}/messages"
        answer = server.http.post(url, json={"content": poison})
        assert (answer.status_code, answer.json()["code"]) == (500, "agent_failed"), poison
        assert say(server.http, thread_id, "Hello").startswith("fine, "), poison
    server.kill()
    again = start(folder)
    assert say(again.http, thread_id, "Hello").startswith("fine, ")
    said = [line for line in history(again.http, thread_id) if not line.startswith("user")]
    assert len(said) == len(POISONS) + 2
    assert all(line.startswith("assistant fine, ") for line in said)
