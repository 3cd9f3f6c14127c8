"""What clients of these processes do all the time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.chaos.clients import numbered_events

DEADLINE = 60.0
Event = tuple[int, str, dict[str, Any]]


async def new_thread(http: httpx2.AsyncClient) -> str:
    answer = await http.post("/threads")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["thread_id"])


async def send(http: httpx2.AsyncClient, thread_id: str, content: str, **more: Any) -> Any:
    """The turn, when it has ended."""
    body = {"content": content, **more}
    answer = await http.post(f"/threads/{thread_id}/messages", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def start(http: httpx2.AsyncClient, thread_id: str, content: str, **more: Any) -> str:
    """The run, which goes on in the background."""
    body = {"content": content, "background": True, **more}
    answer = await http.post(f"/threads/{thread_id}/messages", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


@asynccontextmanager
async def streaming(
    http: httpx2.AsyncClient, thread_id: str, content: str, **more: Any
) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a new turn."""
    body = {"content": content, "stream": True, **more}
    url = f"/threads/{thread_id}/messages"
    async with http.stream("POST", url, json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async with numbered_events(answer) as events:
            yield events


@asynccontextmanager
async def following(
    http: httpx2.AsyncClient, thread_id: str, run_id: str, after: int = 0
) -> AsyncIterator[AsyncIterator[Event]]:
    headers = {"Last-Event-ID": str(after)} if after else {}
    url = f"/threads/{thread_id}/runs/{run_id}/events"
    async with http.stream("GET", url, headers=headers) as answer:
        if answer.status_code != 204:
            assert answer.status_code == 200, await answer.aread()
        async with numbered_events(answer) as events:
            yield events


async def read_events(
    http: httpx2.AsyncClient, thread_id: str, run_id: str, after: int = 0
) -> list[Event]:
    """Those that follow, until the run ends or asks something."""
    async with asyncio.timeout(DEADLINE), following(http, thread_id, run_id, after) as events:
        return [event async for event in events]


async def get_run(http: httpx2.AsyncClient, thread_id: str, run_id: str) -> Any:
    answer = await http.get(f"/threads/{thread_id}/runs/{run_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ended(http: httpx2.AsyncClient, thread_id: str, run_id: str) -> Any:
    """The run, when it has."""
    await read_events(http, thread_id, run_id)
    return await get_run(http, thread_id, run_id)


async def history(http: httpx2.AsyncClient, thread_id: str) -> list[str]:
    answer = await http.get(f"/threads/{thread_id}/messages?limit=200")
    assert answer.status_code == 200, answer.text
    return [message["content"] for message in answer.json()["data"]]


def text_of(events: list[Event]) -> str:
    return "".join(data["delta"] for _, kind, data in events if kind == "message.delta")


def check_numbers(events: list[Event], *, after: int = 0) -> None:
    numbers = [number for number, _, _ in events]
    assert numbers == list(range(after + 1, after + 1 + len(numbers)))


async def read_events_until(
    http: httpx2.AsyncClient, thread_id: str, run_id: str, kind: str
) -> list[Event]:
    """Up to the first one of this kind."""
    found: list[Event] = []
    async with asyncio.timeout(DEADLINE), following(http, thread_id, run_id) as events:
        async for event in events:
            found.append(event)
            if event[1] == kind:
                break
    return found
