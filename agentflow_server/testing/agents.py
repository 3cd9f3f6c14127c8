"""What every Agent has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from agentflow_server.interfaces import (
    Agent,
    AgentAsked,
    AgentEvent,
    MessageCompleted,
    RunContext,
    TextDelta,
)
from agentflow_server.models import (
    Content,
    Interrupt,
    JsonObject,
    Message,
    NewMessage,
    Principal,
    Role,
)

HOSTILE_CLAIMS: JsonObject = {
    "user_id": "mallory",
    "thread_id": "stolen",
    "run_id": "stolen",
    "agent": "stolen",
    "user": {"user_id": "root"},
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
}
"""Claims whose names mean something to a server or to a framework."""


@dataclass(slots=True)
class _Run:
    """The newest run of a thread, and what it waits for."""

    context: RunContext
    messages: Sequence[Message]
    asked: Sequence[Interrupt] = ()


class Conversation:
    """Drives one agent the way the server does: every turn is a run of its own on a thread."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._history: dict[str, list[Message]] = {}
        self._runs: dict[str, _Run] = {}

    def context(
        self,
        thread_id: str,
        *,
        user: str = "alice",
        claims: JsonObject | None = None,
        client: JsonObject | None = None,
        scopes: frozenset[str] = frozenset(),
    ) -> RunContext:
        run_id = str(uuid4())
        config = {
            **(client or {}),
            **{key: value for key, value in (claims or {}).items() if self.permits(key)},
            "thread_id": thread_id,
            "run_id": run_id,
            "agent": "main",
            "user": dict(claims or {}),
            "user_id": user or None,
        }
        principal = Principal(user, dict(claims or {}), scopes)
        return RunContext(thread_id, run_id, "main", principal, config, dict(client or {}))

    def permits(self, key: str) -> bool:
        """Whether a claim of this name reaches the top level of the config."""
        return key not in self.agent.reserved and not key.startswith("_")

    def message(
        self, content: Content, thread_id: str, *, role: Role = "user", **metadata: Any
    ) -> Message:
        return Message(
            message_id=str(uuid4()),
            thread_id=thread_id,
            run_id=str(uuid4()),
            role=role,
            content=content,
            created_at=datetime.now(UTC),
            metadata=metadata,
        )

    def stream(self, content: Content, thread_id: str, **caller: Any) -> Any:
        """The agent's own stream for a new message; `caller` as for `context`."""
        question = self.message(content, thread_id)
        history = self._history.setdefault(thread_id, [])
        history.append(question)
        messages = [question] if self.agent.remembers else list(history)
        context = self.context(thread_id, **caller)
        self._runs[thread_id] = _Run(copy.deepcopy(context), messages)
        return self.agent.stream(context, messages)

    async def say(self, content: Content, thread_id: str, **caller: Any) -> Sequence[AgentEvent]:
        """All events of a turn. What the agent says becomes part of the history."""
        return await self._hear(self.stream(content, thread_id, **caller), thread_id)

    async def answer(self, thread_id: str, *values: Any) -> Sequence[AgentEvent]:
        """Resume the newest run with a value for each of its questions."""
        run = self._runs[thread_id]
        asked = (question.interrupt_id for question in run.asked)
        given = dict(zip(asked, values, strict=True))
        run.context = replace(run.context, answers=[*run.context.answers, given], attempt=1)
        return await self._go_on(thread_id)

    async def retry(self, thread_id: str) -> Sequence[AgentEvent]:
        """What follows when the server died while it executed the newest run."""
        run = self._runs[thread_id]
        run.context = replace(run.context, attempt=run.context.attempt + 1)
        return await self._go_on(thread_id)

    def run_id(self, thread_id: str) -> str:
        """Of the newest run."""
        return self._runs[thread_id].context.run_id

    async def _go_on(self, thread_id: str) -> Sequence[AgentEvent]:
        run = self._runs[thread_id]
        stream = self.agent.stream(copy.deepcopy(run.context), run.messages)
        return await self._hear(stream, thread_id)

    async def _hear(self, stream: Any, thread_id: str) -> Sequence[AgentEvent]:
        async with aclosing(stream) as heard:
            events: list[AgentEvent] = [event async for event in heard]
        self._runs[thread_id].asked = asked_in(events)
        if not asked_in(events):
            self._history[thread_id].extend(
                self.message(said.content, thread_id, role=said.role, **said.metadata)
                for said in completed(events)
            )
        return events

    async def ask(self, content: Content, thread_id: str, **caller: Any) -> str:
        """The text of the last message."""
        said = completed(await self.say(content, thread_id, **caller))[-1].content
        return said if isinstance(said, str) else json.dumps(said)


def completed(events: Sequence[AgentEvent]) -> list[NewMessage]:
    return [event.message for event in events if isinstance(event, MessageCompleted)]


def asked_in(events: Sequence[AgentEvent]) -> Sequence[Interrupt]:
    """What the agent waits for."""
    return events[-1].interrupts if events and isinstance(events[-1], AgentAsked) else ()


class AgentSuite:
    """Subclass it, give it an agent that repeats what the user says, and run pytest:

    class TestMyAgent(AgentSuite):
        @pytest.fixture
        def agent(self):
            return MyAgent()

    With `asking_agent`, one that asks a question and then says the answer, it is tested that runs
    wait for humans, too.
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def agent(self) -> Agent:
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def asking_agent(self) -> Agent | None:
        return None

    @pytest.fixture
    async def interview(self, asking_agent: Agent | None) -> AsyncIterator[Conversation]:
        if asking_agent is None:
            pytest.skip("there is no asking_agent")
        await asking_agent.open()
        yield Conversation(asking_agent)
        await asking_agent.close()

    @pytest.fixture
    async def conversation(self, agent: Agent) -> AsyncIterator[Conversation]:
        await agent.open()
        yield Conversation(agent)
        await agent.close()

    async def test_it_says_what_it_is(self, agent: Agent) -> None:
        assert agent.kind
        assert isinstance(agent.remembers, bool)
        assert all(isinstance(key, str) for key in agent.reserved)

    async def test_it_answers(self, conversation: Conversation) -> None:
        messages = completed(await conversation.say("marmalade", "t1"))
        assert {message.role for message in messages} <= {"assistant", "tool", "system"}
        assert messages[-1].role == "assistant"
        assert "marmalade" in str(messages[-1].content)

    async def test_what_it_streams_is_part_of_the_message_that_follows(
        self, conversation: Conversation
    ) -> None:
        text = ""
        for event in await conversation.say("marmalade", "t1"):
            if isinstance(event, TextDelta):
                assert event.text
                text += event.text
            elif isinstance(event, MessageCompleted) and event.message.role == "assistant":
                assert text in str(event.message.content)
                text = ""
        assert text == "", "text was streamed, and no message completed it"

    async def test_all_it_says_is_json(self, conversation: Conversation) -> None:
        for event in await conversation.say("marmalade", "t1"):
            said = json.dumps(asdict(event), allow_nan=False, ensure_ascii=False)
            assert said.encode(), "text that UTF-8 can hold"

    async def test_it_takes_content_in_parts(self, conversation: Conversation) -> None:
        assert await conversation.say([{"type": "text", "text": "marmalade"}], "t1")

    async def test_turns_at_the_same_time_never_mix(self, conversation: Conversation) -> None:
        for _ in range(2):
            answers = await asyncio.gather(
                *(conversation.ask(f"word-{n}.", f"t{n}", user=f"user-{n}") for n in range(20))
            )
            for n, answer in enumerate(answers):
                assert f"word-{n}." in answer
                assert not any(f"word-{m}." in answer for m in range(20) if m != n)

    async def test_claims_of_any_name_break_nothing(self, conversation: Conversation) -> None:
        for _ in range(2):
            answer = await conversation.ask("marmalade", "t1", claims=HOSTILE_CLAIMS)
            assert "marmalade" in answer
            assert "stolen" not in answer

    async def test_a_turn_that_nobody_hears_to_the_end_breaks_nothing(
        self, conversation: Conversation
    ) -> None:
        async with aclosing(conversation.stream("marmalade", "t1")) as events:
            await anext(events)
        assert "bread" in await conversation.ask("bread", "t1")

    async def test_a_cancelled_turn_breaks_nothing(self, conversation: Conversation) -> None:
        turn = asyncio.create_task(conversation.say("marmalade", "t1"))
        await asyncio.sleep(0)
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)
        assert "bread" in await conversation.ask("bread", "t1")

    async def test_a_thread_may_be_forgotten_more_than_once(
        self, conversation: Conversation
    ) -> None:
        await conversation.say("marmalade", "t1")
        for _ in range(2):
            await conversation.agent.forget("t1")
        await conversation.agent.forget("never-heard-of")
        assert "marmalade" not in await conversation.ask("bread", "t1")

    async def test_a_run_may_be_undone_more_than_once(self, conversation: Conversation) -> None:
        await conversation.say("marmalade", "t1")
        for _ in range(2):
            await conversation.agent.undo("t1", conversation.run_id("t1"))
        await conversation.agent.undo("never-heard-of", "never-heard-of")
        assert "bread" in await conversation.ask("bread", "t1")

    async def test_a_run_that_has_stopped_is_settled(self, conversation: Conversation) -> None:
        await conversation.say("marmalade", "t1")
        for run_id in (conversation.run_id("t1"), "never-heard-of"):
            settling = asyncio.create_task(conversation.agent.settle(run_id))
            done, _ = await asyncio.wait({settling}, timeout=10)
            assert done, "a run that has ended goes on"

    async def test_a_run_that_died_is_finished(self, conversation: Conversation) -> None:
        async with aclosing(conversation.stream("marmalade", "t1")) as events:
            await anext(events)
        assert "marmalade" in str(completed(await conversation.retry("t1"))[-1].content)

    async def test_a_question_ends_the_turn(self, interview: Conversation) -> None:
        events = await interview.say("marmalade", "t1")
        questions = asked_in(events)
        assert questions
        assert len({question.interrupt_id for question in questions}) == len(questions)
        assert not any(isinstance(event, AgentAsked) for event in events[:-1])
        assert json.dumps([question.model_dump() for question in questions], allow_nan=False)

    async def test_a_run_goes_on_with_its_answer(self, interview: Conversation) -> None:
        await interview.say("marmalade", "t1")
        events = await interview.answer("t1", "with butter")
        assert not asked_in(events)
        assert "with butter" in str(completed(events)[-1].content)

    async def test_an_answered_run_that_died_is_not_asked_again(
        self, interview: Conversation
    ) -> None:
        await interview.say("marmalade", "t1")
        await interview.answer("t1", "with butter")
        if interview.agent.resumable:
            events = await interview.retry("t1")
            assert not asked_in(events)
            assert "with butter" in str(completed(events)[-1].content)

    async def test_runs_that_ask_at_the_same_time_get_their_own_answers(
        self, interview: Conversation
    ) -> None:
        threads = [f"t{n}" for n in range(10)]
        await asyncio.gather(*(interview.say("marmalade", thread) for thread in threads))
        answers = await asyncio.gather(
            *(interview.answer(thread, f"for-{thread}.") for thread in threads)
        )
        for thread, events in zip(threads, answers, strict=True):
            assert f"for-{thread}." in str(completed(events)[-1].content)

    async def test_who_does_not_answer_starts_another_turn(self, interview: Conversation) -> None:
        await interview.say("marmalade", "t1")
        assert asked_in(await interview.say("bread", "t1"))
        events = await interview.answer("t1", "with butter")
        assert "with butter" in str(completed(events)[-1].content)
