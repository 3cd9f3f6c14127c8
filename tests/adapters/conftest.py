"""A turn of an agent, without the server around it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from agentflow_server.interfaces import (
    Agent,
    AgentEvent,
    MessageCompleted,
    RunContext,
    TextDelta,
)
from agentflow_server.models import Message, Principal

HOSTILE_CLAIMS = {
    "user_id": "mallory",
    "thread_id": "stolen",
    "run_id": "stolen",
    "checkpoint_id": "1ef4f797-8335-6428-8001-8a1503f9b875",
    "checkpoint_ns": "stolen",
    "checkpoint_map": {"": "stolen"},
    "configurable": {"thread_id": "stolen"},
    "recursion_limit": -1,
    "callbacks": ["stolen"],
    "tags": "stolen",
    "metadata": "stolen",
    "run_name": 7,
    "max_concurrency": -1,
    "store": "stolen",
    "durability": "stolen",
    "langgraph_auth_user": {"identity": "root"},
    "langgraph_auth_user_id": "root",
    "langgraph_auth_permissions": ["everything"],
    "langgraph_request_id": "stolen",
    "__pregel_checkpointer": "stolen",
    "__pregel_resuming": True,
    "__x": "stolen",
    "_node_name": "stolen",
    "authz": {"scope": "none", "user_id": "root", "scopes": []},
    "is_stream": False,
    "timestamp": "1970-01-01",
    "resume_data": {"x": 1},
    "roles": ["reader"],
}


class Talk:
    """Drives one agent; every turn has an own run on a thread."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._history: dict[str, list[Message]] = {}

    def context(
        self,
        thread: str = "t1",
        *,
        user: str = "alice",
        claims: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
        scopes: frozenset[str] = frozenset(),
    ) -> RunContext:
        """Claims are not filtered here: an adapter has to stand them all."""
        claims = claims or {}
        run_id = str(uuid4())
        config = {**(client or {}), **claims}
        server = {"thread_id": thread, "run_id": run_id, "agent": "main", "user": dict(claims)}
        return RunContext(
            thread_id=thread,
            run_id=run_id,
            agent="main",
            principal=Principal(user, claims, scopes),
            config={**config, **server, "user_id": user or None},
            client_config=dict(client or {}),
        )

    def message(
        self, content: Any, thread: str = "t1", *, role: str = "user", **metadata: Any
    ) -> Message:
        return Message(
            message_id=str(uuid4()),
            thread_id=thread,
            run_id=str(uuid4()),
            role=role,
            content=content,
            created_at=datetime.now(UTC),
            metadata=metadata,
        )

    def stream(self, content: Any, thread: str = "t1", **settings: Any) -> Any:
        question = self.message(content, thread)
        history = self._history.setdefault(thread, [])
        history.append(question)
        messages = [question] if self.agent.remembers else list(history)
        return self.agent.stream(self.context(thread, **settings), messages)

    async def say(self, content: Any, thread: str = "t1", **settings: Any) -> list[AgentEvent]:
        """All events of a turn; what it answers becomes part of the history."""
        async with aclosing(self.stream(content, thread, **settings)) as stream:
            events = [event async for event in stream]
        for event in events:
            if isinstance(event, MessageCompleted):
                said = event.message
                self._history[thread].append(
                    self.message(said.content, thread, role=said.role, **said.metadata)
                )
        return events

    async def ask(self, content: Any, thread: str = "t1", **settings: Any) -> Any:
        """The content of the last message."""
        return self.completed(await self.say(content, thread, **settings))[-1].content

    @staticmethod
    def completed(events: list[AgentEvent]) -> list[Any]:
        return [event.message for event in events if isinstance(event, MessageCompleted)]

    @staticmethod
    def text(events: list[AgentEvent]) -> list[str]:
        return [event.text for event in events if isinstance(event, TextDelta)]


@pytest.fixture
def talk() -> Callable[[Agent], Talk]:
    return Talk


@pytest.fixture
def hostile_claims() -> dict[str, Any]:
    return dict(HOSTILE_CLAIMS)


@pytest.fixture
def in_background() -> Any:
    """Consume a stream in a task that is gone at the end, one way or the other."""

    @asynccontextmanager
    async def consume(stream: Any) -> AsyncIterator[asyncio.Task[None]]:
        async def drain() -> None:
            async with aclosing(stream) as events:
                async for _ in events:
                    pass

        task = asyncio.create_task(drain())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return consume
