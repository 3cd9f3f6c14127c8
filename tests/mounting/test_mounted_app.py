"""`app.mount("/agent-api", create_app("agentflow.json"))`: everything works below a mount."""

import threading
from collections.abc import Iterator

import pytest
from fastapi import Depends, FastAPI

from agentflow_server import AgentflowApp, create_app
from agentflow_server.mounting import include_agentflow


@pytest.fixture
def app(project) -> Iterator[AgentflowApp]:
    app = create_app(project())
    yield app
    app._portal.close()


@pytest.fixture(params=["mounted", "included", "guarded"])
async def client(request, app, serve):
    """All three ways."""
    host = FastAPI()
    if request.param == "mounted":
        host.mount("/agent-api", app)
    else:
        guard = Depends(lambda: "alice") if request.param == "guarded" else None
        include_agentflow(host, app.config, principal=guard)
    return await serve(host)


async def test_messages_streams_and_sockets_work_below_a_mount(client, open_socket, converse, say):
    assert (await say(client, "Hello"))["said"] == "Hello"
    thread = (await client.post("/agent-api/threads")).json()["thread_id"]
    url = f"/agent-api/threads/{thread}/messages"
    names = []
    async with client.stream("POST", url, json={"content": "x", "stream": True}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
    assert names[-1] == "run.completed"
    async with open_socket(client, f"/agent-api/threads/{thread}/ws") as socket:
        assert (await converse(socket, "Hi"))["said"] == "Hi"


async def test_addresses_below_a_mount_are_those_that_clients_see(client):
    page = (await client.get("/agent-api/docs")).text
    assert "'/agent-api/openapi.json'" in page
    assert (await client.get("/agent-api/docs/swagger-ui.css")).status_code == 200
    document = (await client.get("/agent-api/openapi.json")).json()
    assert document["servers"] == [{"url": "/agent-api"}]
    thread = (await client.post("/agent-api/threads")).json()["thread_id"]
    accepted = await client.post(
        f"/agent-api/threads/{thread}/messages", json={"content": "x", "background": True}
    )
    assert accepted.headers["location"].startswith("/agent-api/threads/")
    assert (await client.get(accepted.headers["location"])).status_code == 200


async def test_a_mount_behind_a_proxy_that_strips_its_path_works(project, serve):
    host = FastAPI()
    include_agentflow(host, project())
    client = await serve(host, root_path="/outside")
    document = (await client.get("/agent-api/openapi.json")).json()
    assert document["servers"] == [{"url": "/outside/agent-api"}]


async def test_an_included_app_lives_as_long_as_its_host(project, serve):
    told = []

    async def lifespan(_):
        told.append("host opens")
        yield
        told.append("host closes")

    host = FastAPI(lifespan=lifespan)
    inner = include_agentflow(host, project())
    assert not inner._is_open
    client = await serve(host)
    assert inner._is_open
    assert told == ["host opens"]
    assert (await client.get("/agent-api/health/ready")).status_code == 200
    assert "agentflow" not in [thread.name for thread in threading.enumerate()]


async def test_two_servers_in_one_host_have_nothing_in_common(project, serve, say):
    host = FastAPI()
    first = project(database="sqlite:///first.db")
    include_agentflow(host, create_app(first).config)
    second = project("def app(messages, config):\n    return 'second'", database="sqlite:///2.db")
    include_agentflow(host, second, prefix="/other")
    client = await serve(host)
    assert await say(client, "Hello") == {"said": "Hello"}
    thread = (await client.post("/other/threads")).json()["thread_id"]
    answer = await client.post(f"/other/threads/{thread}/messages", json={"content": "x"})
    assert answer.json()["message"]["content"] == "second"
    assert (await client.get(f"/agent-api/threads/{thread}")).status_code == 404


async def test_the_authentication_of_agentflow_json_stays_in_force(project, serve, monkeypatch):
    monkeypatch.setenv("JWT_SECRET_KEY", "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6")
    host = FastAPI()
    include_agentflow(host, project(auth="jwt"))
    client = await serve(host)
    assert (await client.get("/agent-api/threads")).status_code == 401
    assert (await client.get("/agent-api/docs")).status_code == 200
