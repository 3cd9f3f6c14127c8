"""Clients that hold one conversation after the other, and check every answer."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from tests.distributed import talking


@dataclass
class Load:
    """What was acknowledged, and what went wrong."""

    http: httpx2.AsyncClient
    threads: dict[str, list[str]] = field(default_factory=dict)
    """thread_id → what has to be in it."""
    failures: list[str] = field(default_factory=list)
    turns: int = 0
    stopping: bool = False

    async def converse(self, number: int) -> None:
        """Every way to take a turn, again and again on a new thread, until it is told to stop."""
        ways = [self._wait, self._stream, self._follow, self._queue, self._ask, self._copy]
        if number % 2:
            ways.append(self._wait_long)
        while not self.stopping:
            try:
                thread_id = await talking.new_thread(self.http)
                said = self.threads[thread_id] = []
                for way in ways:
                    await way(thread_id, said)
                    self.turns += 1
            except (AssertionError, httpx2.TransportError, TimeoutError) as exc:
                self.failures.append(f"client {number}: {exc!r}")

    async def _wait(self, thread_id: str, said: list[str]) -> None:
        content = f"sleep 0.1 {uuid4()}"
        turn = await talking.send(self.http, thread_id, content)
        said += [content, f"echo {content}"]
        assert turn["message"]["content"] == said[-1]

    async def _wait_long(self, thread_id: str, said: list[str]) -> None:
        """Longer than a server goes on listening that is about to stop."""
        turn = await talking.send(self.http, thread_id, "sleep 1.2")
        said += ["sleep 1.2", "echo sleep 1.2"]
        assert turn["message"]["content"] == said[-1]

    async def _stream(self, thread_id: str, said: list[str]) -> None:
        async with talking.streaming(self.http, thread_id, "slowly 20") as stream:
            events = [event async for event in stream]
        self._check_stream(events)
        said += ["slowly 20", talking.text_of(events)]

    async def _follow(self, thread_id: str, said: list[str]) -> None:
        """In the background, with a reader that goes away and comes back."""
        run_id = await talking.start(self.http, thread_id, "slowly 20")
        events: list[talking.Event] = []
        while not events or events[-1][1] != "run.completed":
            async with talking.following(self.http, thread_id, run_id, len(events)) as stream:
                async for event in stream:
                    events.append(event)
                    if len(events) % 7 == 0:
                        break
        self._check_stream(events)
        said += ["slowly 20", talking.text_of(events)]

    def _check_stream(self, events: list[talking.Event]) -> None:
        talking.check_numbers(events)
        assert events[-1][1] == "run.completed", events[-1]
        assert talking.text_of(events) == "".join(f"{n} " for n in range(20))

    async def _queue(self, thread_id: str, said: list[str]) -> None:
        """Several at once, which stand in line; somebody waits for the last one."""
        contents = [f"sleep 0.1 {uuid4()}" for _ in range(4)]
        for content in contents:
            said += [content, f"echo {content}"]
        for content in contents[:-1]:
            await talking.start(self.http, thread_id, content)
        turn = await talking.send(self.http, thread_id, contents[-1])
        assert turn["message"]["content"] == said[-1]

    async def _ask(self, thread_id: str, said: list[str]) -> None:
        turn = await talking.send(self.http, thread_id, "ask me")
        assert turn["status"] == "interrupted", turn
        url = f"/threads/{thread_id}/runs/{turn['run_id']}/resume"
        answer = await self.http.post(url, json={"value": 42})
        assert answer.status_code == 200, answer.text
        said += ["ask me", "told 42"]

    async def _copy(self, thread_id: str, said: list[str]) -> None:
        answer = await self.http.post(f"/threads/{thread_id}/copy")
        assert answer.status_code in {200, 201}, answer.text
        self.threads[answer.json()["thread_id"]] = list(said)
        answer = await self.http.get(f"/threads/{thread_id}/messages?limit=200")
        assert answer.status_code == 200, answer.text

    async def check_histories(self) -> None:
        """Nothing is lost, nothing is there twice, everything in order."""
        for thread_id, said in self.threads.items():
            found = await talking.history(self.http, thread_id)
            assert found[: len(said)] == said, thread_id
            runs: list[dict[str, Any]] = (
                await self.http.get(f"/threads/{thread_id}/runs?limit=100")
            ).json()["data"]
            assert {run["status"] for run in runs} <= {"success"}, runs
            assert {run["attempt"] for run in runs} <= {1}, "a turn was begun again"
