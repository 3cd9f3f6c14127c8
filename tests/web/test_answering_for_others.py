"""Who may answer what the runs of others ask: those whom the configuration names, nobody else."""

import asyncio
import json

import httpx2
import pytest

ASKING = """
from agentflow_server import ask

async def app(messages, config):
    return await ask(config, messages[-1]["content"])

def yes(principal, action, resource):
    return True
"""
ALL = ["threads:read", "threads:write", "runs:create", "runs:read", "runs:cancel"]
ROLES = {
    "roles": {
        "user": ALL,
        "approver": ["runs:create", "interrupts:answer:any"],
        "boss": ["admin"],
    }
}
AUDIT = {"audit": {"sink": "file", "path": "audit.jsonl"}}
ANSWER = {"value": "approved", "background": True}


@pytest.fixture
def alice(as_user):
    return {"headers": as_user("alice", roles=["user"])}


@pytest.fixture
def approver(as_user):
    return {"headers": as_user("bob", roles=["approver"])}


async def ask_as(client, headers, new_thread, **body):
    """The URL of a run that asks."""
    thread_id = await new_thread(client, **headers)
    message = {"content": "May I?", **body}
    asked = await client.post(f"/threads/{thread_id}/messages", json=message, **headers)
    assert asked.json()["status"] == "interrupted", asked.text
    return f"/threads/{thread_id}/runs/{asked.json()['run_id']}"


async def test_an_approver_finds_and_answers_what_others_are_asked(
    project, run_app, new_thread, alice, approver
):
    app = project.app(ASKING, auth="jwt", authorization=ROLES, observability=AUDIT)
    async with run_app(app) as base_url, httpx2.AsyncClient(base_url=base_url) as client:
        url = await ask_as(client, alice, new_thread)
        (found,) = (await client.get("/interrupts/all", **approver)).json()["data"]
        assert (found["owner"], found["interrupts"][0]["value"]) == ("alice", "May I?")
        assert url == f"/threads/{found['thread_id']}/runs/{found['run_id']}"
        answered = await client.post(f"{url}/resume", json=ANSWER, **approver)
        assert answered.status_code == 202, answered.text
        assert answered.json()["run_id"] == found["run_id"]
        async with asyncio.timeout(30):
            while (await client.get(url, **alice)).json()["status"] != "success":
                await asyncio.sleep(0.01)
        thread_url = f"/threads/{found['thread_id']}"
        said = (await client.get(f"{thread_url}/messages", **alice)).json()["data"]
        assert [message["content"] for message in said] == ["May I?", "approved"]
        again = await client.post(f"{url}/resume", json=ANSWER, **approver)
        assert again.status_code == 404
        assert (await client.get("/interrupts/all", **approver)).json()["data"] == []
        assert (await client.post(f"{url}/cancel", **approver)).status_code == 403
        assert (await client.get(url, **approver)).status_code == 403
    log = (project.folder / "audit.jsonl").read_text().splitlines()
    (line,) = [each for each in map(json.loads, log) if each["action"] == "answer"]
    assert line["user_id"] == "bob"
    assert line["details"] == {"owner": "alice", "run_id": found["run_id"]}


@pytest.mark.parametrize(
    "body",
    [
        {"value": 1},
        {"value": 1, "stream": True},
        {"value": 1, "background": True, "webhook": "https://example.com/"},
    ],
)
async def test_what_comes_of_the_answer_is_the_owners_alone(
    serve, new_thread, monkeypatch, alice, approver, body
):
    monkeypatch.setenv("HOOKS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    client = await serve(ASKING, auth="jwt", authorization=ROLES, webhooks={"secret": "HOOKS"})
    url = await ask_as(client, alice, new_thread)
    answered = await client.post(f"{url}/resume", json=body, **approver)
    assert answered.status_code == 422, answered.text
    assert (await client.get(url, **alice)).json()["status"] == "interrupted"


@pytest.mark.parametrize("roles", [["user"], ["boss"], ["user", "boss"]])
async def test_nobody_else_answers_not_even_an_administrator(
    serve, new_thread, as_user, alice, roles
):
    client = await serve(ASKING, auth="jwt", authorization=ROLES)
    url = await ask_as(client, alice, new_thread)
    eve = {"headers": as_user("eve", roles=roles)}
    assert (await client.post(f"{url}/resume", json=ANSWER, **eve)).status_code == 404
    refused = await client.get("/interrupts/all", **eve)
    assert refused.status_code == 403
    assert "interrupts:answer:any" in refused.headers["www-authenticate"]
    assert (await client.get(url, **alice)).json()["status"] == "interrupted"


@pytest.mark.parametrize("policy", ["none", "a function that says yes to all"])
async def test_nobody_answers_for_others_whom_no_role_and_no_scope_names(
    project, run_app, new_thread, as_user, policy
):
    module = project.module(ASKING)
    authorization = None if policy == "none" else f"{module}:yes"
    app = project.app(ASKING, auth="jwt", authorization=authorization)
    alice = {"headers": as_user("alice")}
    eve = {"headers": as_user("eve", scope="interrupts:answer:any runs:create")}
    async with run_app(app) as base_url, httpx2.AsyncClient(base_url=base_url) as client:
        url = await ask_as(client, alice, new_thread)
        assert (await client.get("/interrupts/all", **eve)).status_code == 403
        assert (await client.post(f"{url}/resume", json=ANSWER, **eve)).status_code == 404


async def test_an_approver_finds_no_run_that_is_not_there_or_does_not_ask(
    serve, new_thread, alice, approver
):
    client = await serve(ASKING, auth="jwt", authorization=ROLES)
    url = await ask_as(client, alice, new_thread)
    thread_url, _, run_id = url.partition("/runs/")
    other = await new_thread(client, **alice)
    for path in (f"/threads/{other}/runs/{run_id}", f"{thread_url}/runs/{other}"):
        answered = await client.post(f"{path}/resume", json=ANSWER, **approver)
        assert answered.status_code == 404
    await client.delete(thread_url, **alice)
    assert (await client.post(f"{url}/resume", json=ANSWER, **approver)).status_code == 404
