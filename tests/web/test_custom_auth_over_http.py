"""A user's own BaseAuth, through the whole server."""

import asyncio

import pytest

BACKEND = """
import time
from fastapi import HTTPException
from agentflow_server import BaseAuth

class Auth(BaseAuth):
    def __init__(self, greeting="hi"):
        self.greeting = greeting

    def authenticate(self, res, credential):
        token = credential.credentials
        res.headers["X-Greeting"] = self.greeting
        res.set_cookie("seen", "yes")
        if token == "teapot":
            raise HTTPException(418, "I am a teapot", headers={"X-Tea": "green"})
        if token == "bad":
            raise HTTPException(status_code=401, detail="Invalid authentication credentials")
        if token == "crash":
            raise RuntimeError("db password hunter2")
        if token == "slow":
            time.sleep(1.0)
        return {"": {}, "empty": {}, "none": None, "false": False, "list": []}.get(
            token, {"user_id": token, "roles": ["user"]}
        )

class Cookies(BaseAuth):
    credential_required = False
    async def authenticate(self, request, res, credential):
        user = request.cookies.get("session")
        return {"user_id": user} if user else None

def app(messages, config):
    return repr((config["user_id"], config.get("roles")))
"""


@pytest.fixture
async def client(serve, project):
    module = project.module(BACKEND)
    auth = {
        "method": "custom", "path": f"{module}:Auth", "options": {"greeting": "hello"},
        "timeout": 0.4,
    }  # fmt: skip
    return await serve(agent=f"{module}:app", auth=auth)


def with_token(token):
    return {"Authorization": f"Bearer {token}"}


async def test_what_the_backend_returns_reaches_the_agent(client, new_thread):
    thread_id = await new_thread(client, headers=with_token("alice"))
    answer = await client.post(
        f"/threads/{thread_id}/messages", json={"content": "x"}, headers=with_token("alice")
    )
    assert answer.json()["message"]["content"] == "('alice', ['user'])"


async def test_headers_and_cookies_of_the_backend_reach_the_client(client):
    good = await client.get("/threads", headers=with_token("alice"))
    assert good.headers["x-greeting"] == "hello"
    assert good.cookies["seen"] == "yes"
    missing = await client.get("/threads/nope", headers=with_token("alice"))
    assert (missing.status_code, missing.headers["x-greeting"]) == (404, "hello")


async def test_without_a_header_the_backend_is_not_called(client):
    answer = await client.get("/threads")
    assert answer.status_code == 401
    assert answer.json()["detail"] == "Not authenticated"
    assert "x-greeting" not in answer.headers


async def test_an_http_exception_is_answered_as_it_is(client):
    teapot = await client.get("/threads", headers=with_token("teapot"))
    assert teapot.status_code == 418
    assert teapot.json()["detail"] == "I am a teapot"
    assert teapot.headers["x-tea"] == "green"
    bad = await client.get("/threads", headers=with_token("bad"))
    assert bad.status_code == 401
    assert bad.json()["detail"] == "Invalid authentication credentials"
    assert bad.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_r45_a_backend_that_raises_is_a_503_that_tells_nothing(client, caplog):
    answer = await client.get("/threads", headers=with_token("crash"))
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert "hunter2" not in answer.text


async def test_r46_a_backend_that_hangs_is_a_503_and_slows_nobody(client):
    slow = [
        asyncio.create_task(client.get("/threads", headers=with_token("slow"))) for _ in range(3)
    ]
    quick = await client.get("/threads", headers=with_token("alice"))
    assert quick.status_code == 200
    assert not any(task.done() for task in slow), "answered while the others were waiting"
    answers = [await task for task in slow]
    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)


@pytest.mark.parametrize("token", ["none", "false", "list"])
async def test_r47_anything_but_a_user_is_a_401(client, token):
    answer = await client.get("/threads", headers=with_token(token))
    assert answer.status_code == 401
    assert answer.json()["detail"] == "Could not validate credentials"


async def test_r47_an_empty_dict_is_an_anonymous_caller_with_threads_of_its_own(client, new_thread):
    thread_id = await new_thread(client, headers=with_token("empty"))
    mine = await client.get(f"/threads/{thread_id}", headers=with_token("empty"))
    assert mine.status_code == 200
    other = await client.get(f"/threads/{thread_id}", headers=with_token("alice"))
    assert other.status_code == 404


async def test_a_backend_may_read_a_cookie_instead(serve, project):
    module = project.module(BACKEND)
    auth = {"method": "custom", "path": f"{module}:Cookies"}
    client = await serve(agent=f"{module}:app", auth=auth)
    assert (await client.get("/threads")).status_code == 401
    answer = await client.get("/threads", headers={"Cookie": "session=alice"})
    assert answer.status_code == 200
