"""`agentflow chat` at a terminal: what is typed is said, or done."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, TextIO

from agentflow_server.client import AgentflowClientError, AsyncAgentflowClient, ServerUnreachable
from agentflow_server.console.conversation import Conversation
from agentflow_server.console.display import Display
from agentflow_server.console.interrupting import run_interruptible
from agentflow_server.console.printable import make_line
from agentflow_server.console.prompt import Prompt
from agentflow_server.console.questions import describe, read_answer
from agentflow_server.models import Interrupt, JsonObject, Thread

_HELP = """\
/new       begin a new thread
/threads   list your newest threads
/thread N  go on with one of the list, or with the thread of that id; without N, look at this one again
/help      this
/quit      leave, as Ctrl-D does
Ctrl-C stops an answer. After a \\ the line goes on in the next one. //x says /x."""
_LISTED = 20


class Chat:
    """Reads what is typed, until there is no more of it."""

    def __init__(
        self,
        runner: asyncio.Runner,
        client: AsyncAgentflowClient,
        conversation: Conversation,
        *,
        display: Display,
        prompt: Prompt,
        errors: TextIO,
    ) -> None:
        self._runner = runner
        self._client = client
        self._conversation = conversation
        self._display = display
        self._prompt = prompt
        self._errors = errors
        self._listed: list[str] = []
        self._answers: JsonObject = {}

    def talk(self) -> None:
        """To the end of what is typed. Raises KeyboardInterrupt: Ctrl-C where nothing is said."""
        try:
            while self._take_turn():
                pass
        finally:
            self._prompt.save()

    def _take_turn(self) -> bool:
        """Something was typed, and was not to leave."""
        question = self._find_question()
        if question is not None:
            self._display.tell(describe(question))
        try:
            typed = self._prompt.read("? " if question is not None else "> ").strip()
        except EOFError:
            self._display.tell("")
            return False
        match typed.split():
            case []:
                pass
            case ["/quit" | "/exit"]:
                return False
            case [command, *arguments] if command.startswith("/") and command[1:2] != "/":
                self._obey(command, arguments)
            case _:
                self._hear(question, typed[1:] if typed.startswith("//") else typed)
        return True

    def _find_question(self) -> Interrupt | None:
        """The first one that is not answered."""
        open_ones = (
            question
            for question in self._conversation.questions
            if question.interrupt_id not in self._answers
        )
        return next(open_ones, None)

    def _hear(self, question: Interrupt | None, typed: str) -> None:
        try:
            typed.encode()
        except UnicodeEncodeError:
            self._fail("that is no text in UTF-8")
            return
        if question is None:
            self._run(self._conversation.say(typed))
            return
        self._answers[question.interrupt_id] = read_answer(question, typed)
        if self._find_question() is None:
            answers, self._answers = self._answers, {}
            self._run(self._conversation.answer(answers))

    def _obey(self, command: str, arguments: list[str]) -> None:
        match command, arguments:
            case "/help", []:
                self._display.tell(_HELP)
            case "/new", []:
                self._answers = {}
                self._conversation.leave()
            case "/threads", []:
                self._run(self._list_threads())
            case "/thread", [wanted]:
                is_listed = wanted.isdecimal() and 0 < int(wanted) <= len(self._listed)
                self._enter(self._listed[int(wanted) - 1] if is_listed else wanted)
            case "/thread", [] if self._conversation.thread_id is not None:
                self._enter(self._conversation.thread_id)
            case _:
                self._fail(f"{command}: not like this; /help shows the commands")

    def _enter(self, thread_id: str) -> None:
        self._answers = {}
        self._run(self._conversation.enter(thread_id))

    async def _list_threads(self) -> None:
        found: list[Thread] = []
        async with aclosing(self._client.list_threads(page_size=_LISTED)) as threads:
            async for thread in threads:
                found.append(thread)
                if len(found) == _LISTED:
                    break
        self._listed = [thread.thread_id for thread in found]
        lines = [
            f"{number:>3}  {thread.updated_at.astimezone():%Y-%m-%d %H:%M}  {thread.status:<11}  "
            f"{make_line(thread.name or '(no name)', 60)}"
            for number, thread in enumerate(found, 1)
        ]
        self._display.tell("\n".join(lines) or "There are no threads.")

    def _run(self, doing: Coroutine[Any, Any, None]) -> None:
        try:
            run_interruptible(self._runner, doing)
        except ServerUnreachable as error:
            self._fail(f"{error} – /thread looks again how far the agent is")
        except AgentflowClientError as error:
            self._fail(str(error))

    def _fail(self, text: str) -> None:
        self._errors.write(f"{make_line(text)}\n")
        self._errors.flush()
