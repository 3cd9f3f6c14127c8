"""The application where nobody runs its lifespan: a bare TestClient, a mounted sub-application."""

import threading

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from agentflow_server import ConfigError, create_app

SLOW = """
import asyncio
async def app(messages, config):
    for word in ("a", "b"):
        await asyncio.sleep(0.02)
        yield word
"""


@pytest.fixture
def app(project):
    app = project.app(SLOW)
    yield app
    app._portal.close()


def test_a_test_client_without_with_works_request_by_request(app):
    client = TestClient(app)
    thread_id = client.post("/threads").json()["thread_id"]
    url = f"/threads/{thread_id}/messages"
    assert client.post(url, json={"content": "x"}).json()["message"]["content"] == "ab"
    streamed = client.post(url, json={"content": "x", "stream": True})
    assert "run.completed" in streamed.text
    assert len(client.get(url).json()["data"]) == 4


def test_a_test_client_with_with_works_too(project):
    app = project.app(SLOW)
    for _ in range(2):
        with TestClient(app) as client:
            assert client.post("/threads").status_code == 200


def test_a_mounted_application_works(app):
    outer = FastAPI()
    outer.mount("/agents-api", app)
    client = TestClient(outer)
    thread_id = client.post("/agents-api/threads").json()["thread_id"]
    answer = client.post(f"/agents-api/threads/{thread_id}/messages", json={"content": "x"})
    assert answer.json()["message"]["content"] == "ab"
    page = client.get("/agents-api/docs").text
    assert "/agents-api/openapi.json" in page


@pytest.mark.parametrize("place", ["/agents-api", "/agents/ä b"])
def test_a_mounted_application_names_addresses_that_are_there(app, place):
    outer = FastAPI()
    outer.mount(place, app)
    client = TestClient(outer)
    (server,) = client.get(f"{place}/openapi.json").json()["servers"]
    thread_id = client.post(f"{server['url']}/threads").json()["thread_id"]
    message = {"content": "x", "background": True}
    accepted = client.post(f"{place}/threads/{thread_id}/messages", json=message)
    assert accepted.status_code == 202
    found = client.get(accepted.headers["location"])
    assert found.json()["run_id"] == accepted.json()["run_id"]
    assert "servers" not in TestClient(app).get("/openapi.json").json()


def test_a_public_url_says_more_than_where_it_is_mounted(project):
    outer, app = FastAPI(), project.app(public_url="https://api.example.com/agents")
    outer.mount("/inner", app)
    document = TestClient(outer).get("/inner/openapi.json").json()
    assert document["servers"] == [{"url": "https://api.example.com/agents"}]
    app._portal.close()


def find_threads():
    return {thread for thread in threading.enumerate() if thread.name == "agentflow"}


def test_it_is_opened_once_and_closes_cleanly(app):
    before = find_threads()
    clients = [TestClient(app) for _ in range(3)]
    assert [client.get("/health/ready").status_code for client in clients] == [200] * 3
    assert len(find_threads() - before) == 1
    app._portal.close()
    app._portal.close()
    assert find_threads() <= before


def test_what_is_wrong_at_opening_is_raised_where_it_is_asked(app, project):
    TestClient(app).get("/ping")
    second = create_app(project.folder / "agentflow.json")
    with pytest.raises(ConfigError, match="in use"):
        TestClient(second).get("/ping")
