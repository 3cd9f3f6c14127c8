"""Requests that name a webhook, from the first byte to the receiver."""

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from standardwebhooks import Webhook
from websockets.asyncio.client import connect

from agentflow_server.metrics import open_metrics

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
Listen = Callable[..., Awaitable[Any]]

LOCAL = {"secret": "WEBHOOK_SECRET", "allow_private": True}
STRICT = {"secret": "WEBHOOK_SECRET"}
JWT_SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"

AGENT = """
    import asyncio
    from agentflow_server import ask

    seen = []

    async def app(messages, config):
        seen.append(str(config))
        said = messages[-1]["content"]
        if said == "fail":
            raise RuntimeError("a secret of the agent")
        if said == "wait":
            await asyncio.Event().wait()
        if said == "ask":
            return "you said " + str(await ask(config, {"sure": True}))
        if said == "config":
            return " ".join(seen)
        return "echo: " + said
"""


async def new_thread(client: httpx2.AsyncClient, **kwargs: Any) -> str:
    answer = await client.post("/threads", **kwargs)
    return f"/threads/{answer.json()['thread_id']}"


async def say(client: httpx2.AsyncClient, thread: str, content: str, **body: Any) -> Any:
    return await client.post(f"{thread}/messages", json={"content": content, **body})


def told(received: Any) -> Any:
    return json.loads(received.body)


@pytest.mark.parametrize("how", [{}, {"stream": True}, {"background": True}])
async def test_a_message_with_a_webhook_is_told_when_its_run_has_ended(
    serve: Serve, listen: Listen, secrets: tuple[str, str], how: dict[str, Any]
) -> None:
    client, receiver = await serve(AGENT, webhooks=LOCAL), await listen()
    thread, url = await new_thread(client), receiver.url("/hook?a=b")
    answer = await say(client, thread, "Hello", webhook=url, **how)
    assert answer.status_code == (202 if "background" in how else 200), answer.text
    (received,) = await receiver.wait_for(1)
    document = Webhook(secrets[0]).verify(received.body, received.headers)
    assert (document["type"], received.path) == ("run.completed", "/hook?a=b")
    messages = document["data"]["messages"]
    assert [message["content"] for message in messages] == ["echo: Hello"]
    (run,) = (await client.get(f"{thread}/runs")).json()["data"]
    assert (run["webhook"], run["run_id"]) == (url, document["data"]["run_id"])
    assert run["ended_at"] == document["timestamp"]


async def test_without_webhooks_a_request_for_one_is_refused(serve: Serve, listen: Listen) -> None:
    client, receiver = await serve(AGENT), await listen()
    thread = await new_thread(client)
    answer = await say(client, thread, "Hello", webhook=receiver.url())
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "no webhooks configured" in answer.json()["detail"]
    assert (await client.get(f"{thread}/runs")).json()["data"] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://127.0.0.1:8443/",
        "https://169.254.169.254/latest/meta-data/",
        "https://metadata.google.internal/",
        "https://localhost/",
        "https://user:secret@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com/" + "a" * 2048,
        "",
        7,
    ],
)
async def test_a_url_that_is_no_webhook_is_refused_at_once(serve: Serve, url: Any) -> None:
    client = await serve(AGENT, webhooks=STRICT)
    thread = await new_thread(client)
    answer = await say(client, thread, "Hello", webhook=url)
    assert answer.status_code == 422
    assert not url or str(url) not in answer.text
    assert (await client.get(f"{thread}/runs")).json()["data"] == []


async def test_a_run_that_asks_is_told_at_each_of_its_ends(serve: Serve, listen: Listen) -> None:
    client, first, second = await serve(AGENT, webhooks=LOCAL), await listen(), await listen()
    thread = await new_thread(client)
    asked = (await say(client, thread, "ask", webhook=first.url())).json()
    (received,) = await first.wait_for(1)
    assert told(received)["type"] == "run.interrupted"
    assert told(received)["data"]["interrupts"] == asked["interrupts"]
    path = f"{thread}/runs/{asked['run_id']}/resume"
    refused = await client.post(path, json={"value": "yes", "webhook": "ftp://a.example/"})
    assert refused.status_code == 422
    answer = await client.post(path, json={"value": "yes", "webhook": second.url()})
    assert answer.status_code == 200, answer.text
    (received,) = await second.wait_for(1)
    assert told(received)["type"] == "run.completed"
    assert [m["content"] for m in told(received)["data"]["messages"]] == ["you said yes"]
    again = (await say(client, thread, "ask", webhook=first.url())).json()
    await first.wait_for(2)
    await client.post(f"{thread}/runs/{again['run_id']}/resume", json={"value": "no"})
    kinds = [told(received)["type"] for received in await first.wait_for(3)]
    assert kinds == ["run.interrupted", "run.interrupted", "run.completed"]
    assert (len(first.received), len(second.received)) == (3, 1)


@pytest.mark.parametrize("action", ["cancel", "rollback"])
async def test_runs_that_are_stopped_are_told_as_cancelled(
    serve: Serve, listen: Listen, action: str
) -> None:
    client, receiver = await serve(AGENT, webhooks=LOCAL), await listen()
    thread = await new_thread(client)
    runs = [
        (await say(client, thread, "wait", webhook=receiver.url(f"/{n}"), background=True)).json()
        for n in range(2)
    ]
    for n in (1, 0):  # the one in line, then the one at work
        path = f"{thread}/runs/{runs[n]['run_id']}/cancel"
        assert (await client.post(path, json={"action": action})).status_code in (200, 202)
    received = {one.path: told(one) for one in await receiver.wait_for(2)}
    for n in range(2):
        assert received[f"/{n}"]["type"] == "run.cancelled"
        assert received[f"/{n}"]["data"]["run_id"] == runs[n]["run_id"]


async def test_a_message_that_pushes_others_aside_lets_them_tell(
    serve: Serve, listen: Listen
) -> None:
    client, receiver = await serve(AGENT, webhooks=LOCAL), await listen()
    thread = await new_thread(client)
    for n in range(2):
        await say(client, thread, "wait", webhook=receiver.url(f"/{n}"), background=True)
    await say(client, thread, "Hello", on_busy="interrupt", webhook=receiver.url("/2"))
    received = {one.path: told(one)["type"] for one in await receiver.wait_for(3)}
    assert received == {"/0": "run.cancelled", "/1": "run.cancelled", "/2": "run.completed"}


async def test_what_an_agent_raises_is_not_told(serve: Serve, listen: Listen) -> None:
    client, receiver = await serve(AGENT, webhooks=LOCAL), await listen()
    await say(client, await new_thread(client), "fail", webhook=receiver.url())
    (received,) = await receiver.wait_for(1)
    assert (told(received)["type"], told(received)["data"]["error"]["code"]) == (
        "run.failed",
        "agent_failed",
    )
    assert b"a secret of the agent" not in received.body


async def test_neither_does_the_receiver_learn_of_the_caller_nor_the_agent_of_the_webhook(
    serve: Serve, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", JWT_SECRET)
    client, receiver = await serve(AGENT, webhooks=LOCAL, auth="jwt"), await listen()
    claims = {"user_id": "alice", "email": "alice@example.com", "exp": time.time() + 600}
    token = jwt.encode(claims, JWT_SECRET, "HS256")
    client.headers["Authorization"] = f"Bearer {token}"
    thread = await new_thread(client)
    config = {"tags": ["my-tag"]}
    await say(client, thread, "Hello", webhook=receiver.url("/hook"), config=config)
    (received,) = await receiver.wait_for(1)
    sent = received.body.decode() + str(received.headers)
    for word in ("alice", "email", "my-tag", token):
        assert word not in sent
    shown = (await say(client, thread, "config")).json()["message"]["content"]
    assert "alice@example.com" in shown
    assert "/hook" not in shown


async def test_a_message_and_an_answer_on_a_socket_name_webhooks(
    serve: Serve, listen: Listen
) -> None:
    client, receiver = await serve(AGENT, webhooks=LOCAL), await listen()
    thread = await new_thread(client)
    address = f"ws://127.0.0.1:{client.base_url.port}{thread}/ws"

    async with connect(address) as line:

        async def command(**frame: Any) -> Any:
            await line.send(json.dumps(frame))
            while (frame := json.loads(await line.recv()))["type"] not in ("accepted", "error"):
                pass
            return frame

        bad = await command(type="message", content="ask", webhook="https://user@a.example/")
        assert bad["type"] == "error"
        begun = await command(type="message", content="ask", webhook=receiver.url("/first"))
        assert begun["run"]["webhook"] == receiver.url("/first")
        await receiver.wait_for(1)
        run_id = begun["run"]["run_id"]
        await command(type="resume", run_id=run_id, value="yes", webhook=receiver.url("/second"))
        received = await receiver.wait_for(2)
    kinds = [(one.path, told(one)["type"]) for one in received]
    assert kinds == [("/first", "run.interrupted"), ("/second", "run.completed")]


def test_metrics_count_what_came_of_webhooks() -> None:
    metrics = open_metrics()
    for result in ("failed", "failed", "delivered"):
        metrics.webhook(result)
    text, _ = metrics.expose("")
    lines = [line for line in text.decode().splitlines() if "webhooks_total{" in line]
    assert lines == [
        'agentflow_webhooks_total{result="delivered"} 1.0',
        'agentflow_webhooks_total{result="failed"} 2.0',
        'agentflow_webhooks_total{result="given_up"} 0.0',
    ]


def test_a_missing_secret_stops_the_check_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("def app(messages):\n    return 'Hi'\n")
    settings = {"agent": "agent:app", "auth": None, "webhooks": {"secret": "NO_SUCH_VARIABLE"}}
    (tmp_path / "agentflow.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "agentflow_server", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "webhooks.secret: the environment variable NO_SUCH_VARIABLE is not set" in line
