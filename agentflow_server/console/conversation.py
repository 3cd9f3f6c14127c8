"""One thread and who talks on it: what is said goes out, what comes back is told."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from agentflow_server.client import (
    AgentflowClientError,
    AsyncAgentflowClient,
    InvalidRequest,
)
from agentflow_server.client.turns import MessageOptions
from agentflow_server.console.display import Display
from agentflow_server.console.telling import Telling, find_text
from agentflow_server.models import Interrupt, JsonObject, Run


class Conversation:
    """Every method ends when the agent has finished or asks something. Being cancelled, which is
    what Ctrl-C does to a method, stops the agent as well. `questions` is what it waits for."""

    def __init__(
        self, client: AsyncAgentflowClient, display: Display, *, agent: str | None = None
    ) -> None:
        self.thread_id: str | None = None
        self.questions: list[Interrupt] = []
        self.was_stopped = False
        self._client = client
        self._display = display
        self._agent = agent
        self._run_id = ""
        self._last_seq = 0

    def leave(self) -> None:
        """What is said next begins a new thread."""
        self.thread_id, self.questions = None, []

    async def say(self, text: str) -> None:
        """Raises AgentflowClientError."""
        self.questions = []
        await self._tell(self._start(text))

    async def answer(self, answers: JsonObject) -> None:
        """By the ids of the questions. Raises AgentflowClientError; when it is an InvalidRequest,
        they are still asked."""
        asked, self.questions = self.questions, []
        resuming = self._client.start_resume(self._thread, self._run_id, answers=answers)
        try:
            await self._tell(resuming, after=self._last_seq)
        except InvalidRequest:
            self.questions = asked
            raise

    async def enter(self, thread_id: str) -> None:
        """Another thread: what was said last is told, and so is what goes on there.

        Raises AgentflowClientError, and then nothing has changed.
        """
        thread = await self._client.get_thread(thread_id)
        async with aclosing(self._client.list_runs(thread.thread_id, page_size=1)) as runs:
            newest = await anext(runs, None)
        self.thread_id, self.questions = thread.thread_id, []
        self._display.note(f"{thread.name or 'A thread without a name'} ({thread.thread_id})")
        if newest is None:
            return
        is_open = thread.status in {"busy", "interrupted"}
        await self._recall(newest, is_open=is_open)
        if is_open:
            await self._tell(_known(newest))

    async def _recall(self, run: Run, *, is_open: bool) -> None:
        """What is still going on tells itself what it says."""
        async with aclosing(self._client.list_messages(self._thread)) as messages:
            async for message in messages:
                if message.run_id != run.run_id:
                    continue
                if message.role == "user":
                    self._display.note(f"> {find_text(message.content)}")
                elif message.role == "assistant" and not is_open:
                    with self._display.answering():
                        self._display.say(find_text(message.content))

    async def _start(self, text: str) -> Run:
        if self.thread_id is None:
            self.thread_id = (await self._client.create_thread()).thread_id
        options: MessageOptions = {} if self._agent is None else {"agent": self._agent}
        return await self._client.start(self.thread_id, text, **options)

    @property
    def _thread(self) -> str:
        return self.thread_id or ""

    async def _tell(self, starting: Coroutine[Any, Any, Run], *, after: int = 0) -> None:
        self.was_stopped = False
        with self._display.answering():
            task = asyncio.create_task(starting)
            try:
                # Not to be stopped half-way: a run of which nobody knows the id would go on.
                self._run_id = (await asyncio.shield(task)).run_id
                await self._follow(after)
            except asyncio.CancelledError:
                self._run_id = (await task).run_id
                await self._stop()

    async def _follow(self, after: int) -> None:
        telling = Telling(self._display, after)
        events = self._client.follow(self._thread, self._run_id, after=after)
        async with aclosing(events):
            async for event in events:
                telling.take(event)
        self._last_seq, self.questions = telling.last_seq, telling.questions

    async def _stop(self) -> None:
        self.was_stopped = True
        self._display.end_message()
        try:
            await self._client.cancel_run(self._thread, self._run_id)
        except AgentflowClientError as error:
            self._display.note(f"The run could not be stopped: {error}")
        else:
            self._display.note("Stopped.")


async def _known(run: Run) -> Run:
    return run
