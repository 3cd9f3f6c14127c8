"""A stream ends with the credential that opened it."""

import json
import time

import httpx2

from agentflow_server.models import Revocation
from agentflow_server.web.scopes import SCOPES

EVERYTHING = set(SCOPES.values())

TALKING = """
import asyncio
async def app(messages, config):
    while True:
        yield "word "
        await asyncio.sleep(0.05)
"""


async def read_to_the_end(client, url, **kwargs):
    async with client.stream("POST", url, timeout=10, **kwargs) as answer:
        assert answer.status_code == 200
        return [line async for line in answer.aiter_lines()]


async def test_r68_a_stream_ends_when_its_token_expires(serve, new_thread, as_user):
    client = await serve(TALKING, auth="jwt")
    thread_id = await new_thread(client, headers=as_user())
    soon = as_user(exp=int(time.time()) + 2)
    body = {"content": "go", "stream": True}
    lines = await read_to_the_end(client, f"/threads/{thread_id}/messages", json=body, headers=soon)
    assert "event: run.started" in lines
    assert not [line for line in lines if line.startswith("event: run.c")], "the run goes on"
    (run,) = (await client.get(f"/threads/{thread_id}/runs", headers=as_user())).json()["data"]
    assert run["status"] == "running"
    url = f"/threads/{thread_id}/runs/{run['run_id']}/cancel"
    assert (await client.post(url, headers=as_user())).status_code == 200


async def test_r68_a_stream_ends_when_its_token_is_revoked(
    project, run_app, new_thread, as_user, monkeypatch
):

    monkeypatch.setattr("agentflow_server.web.watching.RECHECK_SECONDS", 0.1)
    audit = {"audit": {"sink": "file", "path": "audit.jsonl"}}
    app = project.app(TALKING, auth="jwt", observability=audit)
    async with run_app(app) as url, httpx2.AsyncClient(base_url=url, timeout=15) as client:
        thread_id = await new_thread(client, headers=as_user())
        token = as_user(jti="stolen", iat=int(time.time()))
        path = f"/threads/{thread_id}/messages"
        body = {"content": "go", "stream": True}
        async with client.stream("POST", path, json=body, headers=token) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "id: 1"
            guards = app._parts.guards
            revocation = Revocation(at=time.time(), expires_at=time.time() + 60, token_id="stolen")
            await app._parts.database.credentials.add_revocation(revocation)
            await guards.revocations._load()
            rest = [line async for line in lines]
        assert not [line for line in rest if line.startswith("event: run.c")]
        (run,) = (await client.get(f"/threads/{thread_id}/runs", headers=as_user())).json()["data"]
        cancel = f"/threads/{thread_id}/runs/{run['run_id']}/cancel"
        assert (await client.post(cancel, headers=as_user())).status_code == 200
    events = map(json.loads, (project.folder / "audit.jsonl").read_text().splitlines())
    refused = [event for event in events if event.get("reason") == "revoked"]
    assert [(event["user_id"], event["token_id"]) for event in refused] == [("alice", "stolen")]


async def test_r68_an_administrator_loses_what_he_reads_with_his_own_credential(
    project, run_app, new_thread, as_user, monkeypatch
):
    monkeypatch.setattr("agentflow_server.web.watching.RECHECK_SECONDS", 0.1)
    app = project.app(TALKING, auth="jwt", authorization={"default_scopes": sorted(EVERYTHING)})
    bob = as_user("bob", iat=int(time.time()))
    admin = as_user("carol", iat=int(time.time()), scope="admin")
    async with run_app(app) as url, httpx2.AsyncClient(base_url=url, timeout=15) as client:
        thread_id = await new_thread(client, headers=bob)
        body = {"content": "go", "background": True}
        sent = await client.post(f"/threads/{thread_id}/messages", json=body, headers=bob)
        run_url = sent.headers["location"]
        async with client.stream("GET", f"{run_url}/events?owner=bob", headers=admin) as answer:
            assert answer.status_code == 200
            lines = answer.aiter_lines()
            assert await anext(lines) == "id: 1"
            now = time.time()
            await app._parts.database.credentials.add_revocation(
                Revocation(at=now + 1, expires_at=now + 60, user_id="carol")
            )
            await app._parts.guards.revocations._load()
            rest = [line async for line in lines]
        assert not [line for line in rest if line.startswith("event: run.c")]
        assert (await client.post(f"{run_url}/cancel", headers=bob)).status_code == 200
