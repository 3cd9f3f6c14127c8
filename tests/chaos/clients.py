"""Clients that do everything the API offers, at once, and go on whatever becomes of the server."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any
from uuid import UUID, uuid4

import httpx2

from tests.chaos.journal import Answered, Journal, Sent, Stopped
from tests.chaos.plans import WORDS
from tests.chaos.snapshot import Snapshot

AGENTS = ("talks", "blocks", "graph")
REFUSALS = {"thread_busy", "request_in_progress", "not_interrupted", "run_ended", "not_found"}
ENDS = {"server_stopped", "server_restarted", "server_stopping"}
"""What somebody hears who waits for a run."""
THREADS = 3
MESSAGES_PER_THREAD = 25
PATIENCE = 20.0


class Door:
    """Where servers are at the moment, if there are any."""

    def __init__(self) -> None:
        self._urls: deque[str] = deque()
        self._open = asyncio.Event()
        self._done = asyncio.Condition()
        self._doing = ""

    async def announce(self, action: str) -> None:
        """Somebody is about to do it."""
        async with self._done:
            self._doing = action
            self._done.notify_all()

    async def wait_for(self, action: str, seconds: float) -> None:
        """Until somebody does it, but not longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._done:
                self._doing = ""
                await self._done.wait_for(lambda: self._doing == action)

    def open(self, url: str) -> None:
        self._urls.append(url)
        self._open.set()

    def shut(self, url: str) -> None:
        with suppress(ValueError):  # it did not even answer
            self._urls.remove(url)
        if not self._urls:
            self._open.clear()

    async def find(self) -> str:
        """Another one each time."""
        await self._open.wait()
        self._urls.rotate()
        return self._urls[0]


class User:
    """What the clients of one person know together."""

    def __init__(self, owner: str, token: str, journal: Journal) -> None:
        self.owner = owner
        self.headers = {"Authorization": f"Bearer {token}"}
        self.journal = journal
        self.threads: dict[str, int] = {}
        """thread_id → how many messages it got."""
        self.runs: list[tuple[str, str]] = []
        """(thread_id, run_id), the newest last."""


class Client:
    def __init__(self, name: str, user: User, door: Door, random: Random) -> None:
        self._name = name
        self._user = user
        self._door = door
        self._random = random
        self._journal = user.journal
        self._number = 0
        self._stopping = False
        self._http = httpx2.AsyncClient(headers=user.headers, timeout=PATIENCE)

    def stop(self) -> None:
        self._stopping = True

    async def work(self) -> None:
        random = self._random
        actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (9, self._send_and_wait),
            (7, self._stream),
            (9, self._send_in_background),
            (3, self._send_twice),
            (6, self._follow),
            (3, self._cancel),
            (6, self._answer),
            (1, self._delete),
            (1, self._read),
        ]
        async with self._http:
            while not self._stopping:
                (action,) = random.choices([a for _, a in actions], [w for w, _ in actions])
                try:
                    await self._have_threads()
                    await action()
                except httpx2.TransportError:
                    self._journal.count("cut off")
                await asyncio.sleep(random.uniform(0, 0.03))

    async def _post(self, path: str, body: dict[str, Any], key: str | None = None) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        url = await self._door.find() + path
        return await self._http.post(url, json=body, headers=headers)

    async def _get(self, path: str) -> Any:
        return await self._http.get(await self._door.find() + path)

    def _check(self, answer: Any, *known: int) -> str | None:
        """The code of a problem document. Notes what should not have been answered."""
        if answer.status_code < 400:
            expected = answer.status_code in known
            code = None
        else:
            code = answer.json().get("code")
            expected = code in REFUSALS | ENDS
        self._journal.count(str(code or answer.status_code))
        if not expected:
            self._journal.oddities.append(f"{answer.request.url}: {answer.status_code} {code}")
        return code

    # Threads

    async def _have_threads(self) -> None:
        tired = [t for t, sent in self._user.threads.items() if sent >= MESSAGES_PER_THREAD]
        for thread_id in tired:
            self._user.threads.pop(thread_id, None)
        if len(self._user.threads) >= THREADS:
            return
        key = str(uuid4())
        answer = None
        while answer is None:
            try:
                answer = await self._post("/threads", {}, key)
            except httpx2.TransportError:
                self._journal.count("thread tried again")
        if self._check(answer, 200) is None:
            thread_id = answer.json()["thread_id"]
            self._journal.threads[thread_id] = self._user.owner
            self._user.threads[thread_id] = 0

    def _pick_thread(self) -> str:
        return self._random.choice(list(self._user.threads))

    async def _delete(self) -> None:
        thread_id = self._pick_thread()
        self._journal.deleting.add(thread_id)
        url = await self._door.find() + f"/threads/{thread_id}"
        await self._door.announce("delete")
        answer = await self._http.delete(url)
        code = self._check(answer, 204)
        if code is None:
            self._journal.deleted.add(thread_id)
        if code != "thread_busy":
            self._user.threads.pop(thread_id, None)

    async def _read(self) -> None:
        thread_id = self._pick_thread()
        self._check(await self._get(f"/threads/{thread_id}/messages?limit=200"), 200)
        self._check(await self._get("/threads"), 200)

    # Messages

    def _new_message(self, *, delayed: bool = False) -> tuple[Sent, dict[str, Any]]:
        random = self._random
        thread_id = self._pick_thread()
        self._user.threads[thread_id] += 1
        self._number += 1
        words = random.choices(WORDS, k=random.randint(1, 5))
        content = " ".join([f"{self._name}.{self._number}", *words])
        on_busy = random.choices(["enqueue", "reject", "interrupt", "rollback"], [14, 2, 2, 2])[0]
        body: dict[str, Any] = {"content": content, "on_busy": on_busy}
        # A thread belongs to one agent: its id says to which.
        body["agent"] = AGENTS[UUID(thread_id).int % len(AGENTS)]
        key = str(uuid4()) if random.random() < 0.6 else None
        sent = Sent(self._user.owner, thread_id, content, key, on_busy, delayed)
        self._journal.sent[content] = sent
        return sent, body

    def _note_sent(self, sent: Sent, answer: Any) -> None:
        code = self._check(answer, 200, 202)
        if code == "thread_busy" and sent.result == "unknown":
            sent.result = "refused"
        elif code is None or code in ENDS:
            sent.result = "accepted"
            sent.acknowledged_at = sent.acknowledged_at or time.monotonic()
            if run_id := answer.json().get("run_id"):
                self._note_run(sent, run_id)
            if answer.status_code == 200:
                self._note_reply(answer.json())

    def _note_reply(self, turn: dict[str, Any]) -> None:
        if turn["status"] != "interrupted":
            self._journal.replies[turn["run_id"]] = turn

    def _note_run(self, sent: Sent, run_id: str) -> None:
        sent.runs.add(run_id)
        self._user.runs.append((sent.thread_id, run_id))
        del self._user.runs[:-30]

    async def _send_and_wait(self) -> None:
        sent, body = self._new_message()
        body["on_disconnect"] = self._random.choice(["continue", "continue", "cancel"])
        await self._deliver(sent, body)

    async def _send_in_background(self) -> None:
        delay = self._random.choice([None, None, 0.1, 0.5, 1.5])
        sent, body = self._new_message(delayed=delay is not None)
        body["background"] = True
        if delay is not None:
            body["after_seconds"] = delay
        await self._deliver(sent, body)

    async def _deliver(self, sent: Sent, body: dict[str, Any]) -> None:
        """With a key, again until there is an answer."""
        path = f"/threads/{sent.thread_id}/messages"
        while True:
            try:
                self._note_sent(sent, await self._post(path, body, sent.key))
            except httpx2.TransportError:
                if sent.key is None or self._random.random() < 0.3:
                    raise
                self._journal.count("message tried again")
                continue
            return

    async def _send_twice(self) -> None:
        """The same request at the same time."""
        sent, body = self._new_message()
        sent.key = str(uuid4())
        body["background"] = True
        path = f"/threads/{sent.thread_id}/messages"
        twice = [self._post(path, body, sent.key) for _ in range(2)]
        for answer in await asyncio.gather(*twice, return_exceptions=True):
            if not isinstance(answer, BaseException):
                self._note_sent(sent, answer)

    # Events

    async def _stream(self) -> None:
        sent, body = self._new_message()
        body["stream"] = True
        body["on_disconnect"] = self._random.choice(["continue", "continue", "cancel"])
        path = f"/threads/{sent.thread_id}/messages"
        headers = {} if sent.key is None else {"Idempotency-Key": sent.key}
        url = await self._door.find() + path
        async with self._http.stream("POST", url, json=body, headers=headers) as answer:
            if answer.status_code != 200:
                await answer.aread()
                self._note_sent(sent, answer)
                return
            self._journal.count("stream")
            sent.result = "accepted"
            sent.acknowledged_at = time.monotonic()
            async for run_id in self._read_events(answer, None, 0):
                if run_id not in sent.runs:
                    self._note_run(sent, run_id)

    async def _follow(self) -> None:
        if not self._user.runs:
            return
        thread_id, run_id = self._random.choice(self._user.runs)
        known = [seq for (run, seq) in self._journal.events if run == run_id]
        after = self._random.choice([0, *known])
        url = await self._door.find() + f"/threads/{thread_id}/runs/{run_id}/events"
        headers = {"Last-Event-ID": str(after)}
        async with self._http.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 200:
                await answer.aread()
                self._check(answer, 204)
                return
            async for _ in self._read_events(answer, run_id, after):
                pass

    async def _read_events(self, answer: Any, run_id: str | None, after: int) -> AsyncIterator[str]:
        """Notes every event; hangs up in the middle now and then."""
        leave_at = self._random.randint(1, 60)
        async with numbered_events(answer) as events:
            async for seq, kind, data in events:
                if seq != after + 1:
                    self._journal.oddities.append(f"run {run_id}: {seq} was sent after {after}")
                after = seq
                run_id = run_id or data["run_id"]
                seen = self._journal.events.setdefault((run_id, seq), (kind, data))
                if seen != (kind, data):
                    self._journal.oddities.append(f"run {run_id}: event {seq} has changed")
                yield run_id
                leave_at -= 1
                if not leave_at:
                    return

    # Stopping and answering

    async def _cancel(self) -> None:
        if not self._user.runs:
            return
        thread_id, run_id = self._random.choice(self._user.runs[-8:])
        action = self._random.choice(["cancel", "cancel", "rollback"])
        stopped = Stopped(run_id, action)
        self._journal.stopped.append(stopped)
        await self._door.announce("cancel")
        answer = await self._post(f"/threads/{thread_id}/runs/{run_id}/cancel", {"action": action})
        if self._check(answer, 200, 202) is None:
            stopped.status = answer.json()["status"]

    async def _answer(self) -> None:
        answer = await self._get("/interrupts?limit=5")
        if self._check(answer, 200) is None and (waiting := answer.json()["data"]):
            await self.answer_question(self._random.choice(waiting))

    async def answer_question(self, waiting: dict[str, Any]) -> None:
        """Now and then two people answer at once."""
        path = f"/threads/{waiting['thread_id']}/runs/{waiting['run_id']}/resume"
        (asked,) = waiting["interrupts"]
        given = []
        for _ in range(self._random.choice([1, 1, 2])):
            self._number += 1
            value = f"{self._name}-{self._number}"
            given.append(Answered(waiting["run_id"], asked["interrupt_id"], value))
        self._journal.answered.extend(given)
        forms = [
            self._random.choice(
                [
                    {"value": each.value},
                    {"answers": {asked["interrupt_id"]: each.value}, "background": True},
                    {"value": each.value, "on_disconnect": "cancel"},
                ]
            )
            for each in given
        ]
        for each, form in zip(given, forms, strict=True):
            each.names_it = "answers" in form
        await self._door.announce("answer")
        posts = [self._post(path, body) for body in forms]
        answers = await asyncio.gather(*posts, return_exceptions=True)
        for each, answer in zip(given, answers, strict=True):
            if isinstance(answer, BaseException):
                continue
            code = self._check(answer, 200, 202)
            each.result = "accepted" if code is None or code in ENDS else "refused"
            if answer.status_code == 200:
                self._note_reply(answer.json())

    # What a settled server is asked

    async def answer_all(self) -> None:
        """Until no question is left."""
        async with asyncio.timeout(PATIENCE), self._http:
            while waiting := (await self._get("/interrupts?limit=200")).json()["data"]:
                for each in waiting:
                    await self.answer_question(each)
                await asyncio.sleep(0.1)

    async def compare_states(self, now: Snapshot) -> list[str]:
        """What LangGraph remembers of turns that succeeded is what the thread has of them."""
        problems = []
        async with self._http:
            for thread_id, thread in now.threads.items():
                if thread["owner"] != self._user.owner or thread["agent"] != "graph":
                    continue
                answer = await self._get(f"/threads/{thread_id}/state")
                values = answer.json()["values"] if answer.status_code == 200 else {}
                found = compare_turns(now, thread_id, values.get("messages", []))
                problems += [f"{answer.status_code}, thread {thread_id}: {each}" for each in found]
        return problems


ROLES = {"ai": "assistant", "human": "user", "tool": "tool"}


def compare_turns(now: Snapshot, thread_id: str, remembered: list[dict[str, Any]]) -> list[str]:
    turns: dict[str, list[tuple[str, str]]] = {}
    for message in remembered:
        if message["type"] == "human":
            turn = turns[message["id"]] = []
        turn.append((ROLES[message["type"]], message["content"]))
    problems = []
    for run_id, run in now.runs.items():
        messages = now.messages.get(run_id)
        if run["thread_id"] != thread_id or run["status"] != "success":
            continue
        stored = [(message["role"], message["content"]) for message in messages]
        known = turns.get(messages[0]["message_id"], [])[: len(stored)]
        if stored != known:
            problems.append(f"run {run_id} has {stored}, its graph {known}")
    rolled_back = turns.keys() - {m["message_id"] for turn in now.messages.values() for m in turn}
    return problems + [f"the graph of {thread_id} remembers {gone}" for gone in rolled_back]


@asynccontextmanager
async def numbered_events(answer: Any) -> AsyncIterator[AsyncIterator[tuple[int, str, Any]]]:
    """Server-sent events: number, type, data."""

    async def read() -> AsyncIterator[tuple[int, str, Any]]:
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}
            else:
                fields = {}

    events = read()
    try:
        yield events
    finally:
        await events.aclose()  # type: ignore[attr-defined]
