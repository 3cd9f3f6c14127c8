"""Backends that answer in ways HTTP does not know: the server keeps its own form."""

import pytest

BACKEND = """
from fastapi import HTTPException
from agentflow_server import BaseAuth

class Auth(BaseAuth):
    def authenticate(self, res, credential):
        token = credential.credentials
        if token == "headers":
            res.headers["Cache-Control"] = "public, max-age=999"
            res.headers["X-Own"] = "yes"
            return {"user_id": "alice"}
        if token.isdigit():
            raise HTTPException(int(token), {"why": "odd"})
        if token == "split":
            raise HTTPException(403, "x", headers={"X-A": "b\\r\\nSet-Cookie: c=d", "X-B": "fine"})
        raise HTTPException(403, object())

def app(messages, config):
    return "x"
"""


@pytest.fixture
async def client(serve, project):
    module = project.module(BACKEND)
    return await serve(agent=f"{module}:app", auth={"method": "custom", "path": f"{module}:Auth"})


def with_token(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("token", "status"), [("499", 499), ("599", 599), ("404", 404)])
async def test_an_error_status_of_the_backend_is_answered(client, token, status):
    answer = await client.get("/threads", headers=with_token(token))
    assert answer.status_code == status
    assert answer.json()["detail"] == {"why": "odd"}


@pytest.mark.parametrize("token", ["99", "100", "200", "204", "302", "600"])
async def test_r38_what_is_no_error_status_or_no_text_is_our_own_500(client, token):
    answer = await client.get("/threads", headers=with_token(token))
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]


async def test_a_detail_that_is_no_json_is_left_out(client):
    answer = await client.get("/threads", headers=with_token("object"))
    assert (answer.status_code, answer.json()["detail"]) == (403, None)


async def test_a_header_cannot_begin_another_line(client):
    answer = await client.get("/threads", headers=with_token("split"))
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-b"] == "fine"


async def test_r40_a_backend_cannot_make_answers_public(client):
    answer = await client.get("/threads", headers=with_token("headers"))
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers["x-own"] == "yes"


async def test_an_absurd_length_is_too_large(serve, exchange):
    client = await serve()
    answer = await exchange(
        client,
        b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: " + b"0" * 5000 + b"16\r\n\r\n{}",
        seconds=3,
    )
    assert answer.startswith(b"HTTP/1.1 4")


async def test_the_end_of_a_run_is_told_to_an_event_source_that_comes_back(serve, new_thread):
    client = await serve()
    thread_id = await new_thread(client)
    sent = await client.post(f"/threads/{thread_id}/messages", json={"content": "x"})
    url = f"/threads/{thread_id}/runs/{sent.json()['run_id']}/events"
    assert (await client.get(url, headers={"Last-Event-ID": "3"})).status_code == 204
    assert (await client.get(url, headers={"Last-Event-ID": "2"})).text.startswith("id: 3\n")


async def test_an_idempotency_key_means_the_same_thread_in_capitals(serve, new_thread):
    client = await serve()
    thread_id, key = await new_thread(client), {"Idempotency-Key": "k"}
    for spelled in (thread_id, thread_id.upper()):
        url = f"/threads/{spelled}/messages"
        await client.post(url, json={"content": "x"}, headers=key)
    assert len((await client.get(f"/threads/{thread_id}/messages")).json()["data"]) == 2
