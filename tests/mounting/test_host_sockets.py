"""WebSockets below a gate: the host's dependency judges the handshake as the request that it is."""

import asyncio
import json
import time
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyCookie, OAuth2PasswordBearer
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus

from agentflow_server import Principal, include_agentflow

ALICE = {"Authorization": "Bearer alice"}
BOB = {"Authorization": "Bearer bob"}
OPEN = []

oauth2 = OAuth2PasswordBearer(tokenUrl="token")


async def get_user(request: Request, token: Annotated[str, Depends(oauth2)]):
    if token == "mallory":
        raise HTTPException(403, "Not you")
    assert await request.body() == b""
    OPEN.append((request.method, request.url.scheme, request.url.path))
    yield token
    OPEN.pop()


@pytest.fixture
async def client(project, serve):
    host = FastAPI()
    include_agentflow(host, project(), principal=Depends(get_user))
    return await serve(host)


@pytest.fixture
async def path(client):
    made = await client.post("/agent-api/threads", headers=ALICE)
    return f"/agent-api/threads/{made.json()['thread_id']}/ws"


async def refusal(connecting):
    with pytest.raises(InvalidStatus) as refused:
        async with connecting:
            pass
    return refused.value.response


async def test_the_dependency_sees_the_handshake_and_stays_as_long_as_the_socket(
    client, path, open_socket, converse
):
    async with open_socket(client, path, ALICE) as socket:
        assert await converse(socket, "Hi") == {"said": "Hi", "user_id": "alice"}
        assert [("GET", "http", path)] == OPEN


async def test_a_refused_handshake_is_answered_as_the_host_answers(client, path, open_socket):
    nobody = await refusal(open_socket(client, path))
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"] == "Bearer"
    mallory = await refusal(open_socket(client, path, {"Authorization": "Bearer mallory"}))
    assert (mallory.status_code, json.loads(mallory.body)) == (403, {"detail": "Not you"})


async def test_a_stranger_finds_no_thread_over_a_socket(client, path, open_socket):
    assert (await refusal(open_socket(client, path, BOB))).status_code == 404


async def test_a_ticket_opens_a_socket_where_no_header_can_be_sent(
    client, path, open_socket, converse
):
    assert (await client.post("/agent-api/tickets")).status_code == 401
    ticket = (await client.post("/agent-api/tickets", headers=ALICE)).json()["ticket"]
    offered = ["agentflow", f"ticket.{ticket}"]
    async with open_socket(client, path, subprotocols=offered) as socket:
        assert await converse(socket, "Hi") == {"said": "Hi", "user_id": "alice"}
    again = await refusal(open_socket(client, path, subprotocols=offered))
    assert again.status_code == 401


@pytest.mark.parametrize("origins", [[], ["*"], ["https://app.example.com"]])
async def test_a_foreign_page_cannot_use_the_cookie_of_its_visitor(
    origins, project, serve, open_socket, converse
):
    def from_cookie(session: Annotated[str, Depends(APIKeyCookie(name="session"))]) -> str:
        return session

    host = FastAPI()
    settings = {"cors": {"allow_origins": origins}}
    include_agentflow(host, project(**settings), principal=Depends(from_cookie))
    client = await serve(host)
    cookie = {"Cookie": "session=alice"}
    made = await client.post("/agent-api/threads", headers=cookie)
    path = f"/agent-api/threads/{made.json()['thread_id']}/ws"
    foreign = await refusal(
        open_socket(client, path, {**cookie, "Origin": "https://evil.example.com"})
    )
    assert foreign.status_code in {401, 403}
    own = str(client.base_url).rstrip("/")
    if origins != ["*"]:
        async with open_socket(client, path, {**cookie, "Origin": own}) as socket:
            assert (await converse(socket, "Hi"))["user_id"] == "alice"


async def test_without_its_extension_a_refusal_is_a_closed_socket(project):
    host = FastAPI()
    include_agentflow(host, project(), principal=Depends(get_user))
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket", "path": "/agent-api/threads/x/ws", "headers": [], "query_string": b"",
        "scheme": "ws", "subprotocols": [],
    }  # fmt: skip
    await host(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_dependency_that_fails_after_the_socket_harms_nothing(
    project, serve, open_socket, converse, caplog
):
    class Broken(Exception):
        pass

    async def failing():
        yield "alice"
        raise Broken

    host = FastAPI()
    host.add_exception_handler(Broken, lambda *_: JSONResponse({}, 500))
    include_agentflow(host, project(), principal=Depends(failing))

    @host.websocket("/own")
    async def own(socket: WebSocket):
        await socket.accept()
        await socket.send_json({"of": "the host"})
        await socket.close()

    client = await serve(host)
    made = await client.post("/agent-api/threads", headers=ALICE)
    path = f"/agent-api/threads/{made.json()['thread_id']}/ws"
    async with open_socket(client, path) as socket:
        assert await converse(socket, "Hi") == {"said": "Hi", "user_id": "alice"}
    async with open_socket(client, "/own") as socket:
        assert json.loads(await socket.recv()) == {"of": "the host"}
    async with asyncio.timeout(30):
        while "failed after its WebSocket was answered" not in caplog.text:
            await asyncio.sleep(0.01)


def test_a_bare_test_client_works_where_nobody_runs_the_hosts_lifespan(project):
    host = FastAPI()
    app = include_agentflow(host, project(), principal=Depends(get_user))
    client = TestClient(host)
    try:
        made = client.post("/agent-api/threads", headers=ALICE)
        path = f"/agent-api/threads/{made.json()['thread_id']}/ws"
        with client.websocket_connect(path, headers=dict(ALICE)) as socket:
            assert socket.receive_json()["type"] == "ready"
    finally:
        app._portal.close()


async def test_a_socket_ends_when_what_the_host_believed_expires(project, serve, open_socket):
    async def for_a_moment(token: Annotated[str, Depends(oauth2)]) -> Principal:
        return Principal(token, expires_at=time.time() + 0.3)

    host = FastAPI()
    include_agentflow(host, project(), principal=Depends(for_a_moment))
    client = await serve(host)
    made = await client.post("/agent-api/threads", headers=ALICE)
    async with (
        open_socket(client, f"/agent-api/threads/{made.json()['thread_id']}/ws", ALICE) as socket,
        asyncio.timeout(30),
    ):
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4401, "token expired")
