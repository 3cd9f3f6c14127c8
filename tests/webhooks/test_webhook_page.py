"""What docs/webhooks.md says about requests is so: its receivers understand ours."""

import asyncio
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from standardwebhooks import Webhook

from agentflow_server.config.webhooks import WebhooksSection
from agentflow_server.webhooks.backoff import JITTER, SCHEDULE
from agentflow_server.webhooks.document import MAX_BYTES
from agentflow_server.webhooks.sender import CONCURRENCY, GRACE_SECONDS, PER_HOST

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def run_block(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(text, "docs/webhooks.md", "exec"), names)
    return names


async def test_the_receiver_of_the_page_takes_each_request_once(
    store: Any,
    end_run: Any,
    send: Any,
    counts: Any,
    secrets: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", secrets[0])
    names = run_block(blocks("python")[0])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(names["app"], log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/runs"
        run = await end_run(store, url)
        async with send(store, count=counts):
            await counts.wait_for(1)
        server.should_exit = True
        await serving
    assert counts == ["delivered"]
    assert capsys.readouterr().out == f"run.completed {run.run_id}\n"


async def test_the_check_by_hand_believes_ours_and_no_others(
    listen: Any, store: Any, end_run: Any, send: Any, secrets: tuple[str, str]
) -> None:
    is_genuine = run_block(blocks("python")[1])["is_genuine"]
    receiver = await listen()
    await end_run(store, receiver.url(), said="é")
    async with send(store):
        (received,) = await receiver.wait_for(1)
    headers, body = received.headers, received.body
    assert is_genuine(secrets[0], headers, body)
    assert not is_genuine(secrets[1], headers, body)
    assert not is_genuine(secrets[0], headers, body + b" ")
    assert not is_genuine(secrets[0], {**headers, "webhook-id": "1"}, body)
    old = {**headers, "webhook-timestamp": str(int(time.time()) - 600)}
    assert not is_genuine(secrets[0], old, body)
    assert Webhook(secrets[0]).verify(body, headers)


async def test_a_document_has_the_members_of_the_page(
    listen: Any, store: Any, end_run: Any, send: Any
) -> None:
    shown = next(json.loads(text) for text in blocks("json") if "run.completed" in text)
    receiver = await listen()
    await end_run(store, receiver.url())
    async with send(store):
        (received,) = await receiver.wait_for(1)
    sent = json.loads(received.body)
    assert list(sent) == list(shown)
    assert list(sent["data"]) == list(shown["data"])
    assert list(sent["data"]["messages"][0]) == list(shown["data"]["messages"][0])
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        assert name in received.headers
        assert f"| `{name}` |" in PAGE


def test_the_numbers_of_the_page_are_ours() -> None:
    fields = WebhooksSection.model_fields
    assert set(re.findall(r"^\| `(\w+)` \| ", PAGE, re.M)) >= fields.keys()
    assert f"| `timeout` | {fields['timeout'].default:g} |" in PAGE
    assert f"| `max_attempts` | {fields['max_attempts'].default} |" in PAGE
    assert SCHEDULE == (5, 30, 120, 600, 3600, 6 * 3600, 24 * 3600)
    assert (JITTER, MAX_BYTES, CONCURRENCY, PER_HOST, GRACE_SECONDS) == (0.2, 256_000, 8, 2, 5)
