"""What a run's events mean for somebody who reads along."""

from typing import Any

from pydantic_core import to_json

from agentflow_server.client import RunFailed
from agentflow_server.client.exchange import parse
from agentflow_server.console.display import Display
from agentflow_server.models import Content, Event, Frozen, Interrupt, Message, RunError

_HIDDEN_KINDS = frozenset({"text"})


class _Questions(Frozen):
    interrupts: list[Interrupt]


class _Failure(Frozen):
    error: RunError | None = None


class Telling:
    """Tells one run. `questions` is what it waits for when its events have ended, `last_seq` the
    number of the newest one."""

    def __init__(self, display: Display, last_seq: int = 0) -> None:
        self.questions: list[Interrupt] = []
        self.last_seq = last_seq
        self._display = display
        self._has_begun = last_seq > 0
        self._speaker: str | None = None
        self._said: dict[str, str] = {}

    def take(self, event: Event) -> None:
        """Raises RunFailed, UnexpectedAnswer."""
        self.last_seq = event.seq
        data = event.data
        match event.type:
            case "run.started" | "run.resumed":
                self._begin()
            case "message.delta":
                self._hear(str(data.get("message_id")), str(data.get("delta")))
            case "message.completed":
                self._complete(parse(Message, data))
            case "tool.started":
                self._display.note(f"⚙ {data.get('name')} {show_json(data.get('arguments'))}")
            case "tool.completed":
                self._display.note(f"  {data.get('name')} → {show_json(data.get('result'))}")
            case "custom":
                self._display.note(f"· {show_json(data.get('data'))}")
            case "interrupt":
                self.questions = parse(_Questions, data).interrupts
            case "run.failed":
                failure = parse(_Failure, data).error or RunError(code="error", detail="no reason")
                raise RunFailed(f"the run failed: {failure.detail}", code=failure.code)
            case "run.cancelled":
                self._display.note("The run was cancelled.")

    def _begin(self) -> None:
        """Again, after a crash or an answer: an agent may say once more what it has said before."""
        if self._has_begun:
            self._display.end_message()
        if self._has_begun and self._said:
            self._display.note("The agent goes on; what it has said may come once more.")
        self._has_begun = True
        self.questions = []
        self._speaker, self._said = None, {}

    def _hear(self, message_id: str, piece: str) -> None:
        if self._speaker is None:
            self._speaker = message_id
        # Of two that speak at once the second one is heard when it has finished.
        if self._speaker == message_id:
            self._said[message_id] = self._said.get(message_id, "") + piece
            self._display.say(piece)

    def _complete(self, message: Message) -> None:
        if message.role != "assistant":
            return
        text = find_text(message.content)
        heard = self._said.setdefault(message.message_id, "")
        if self._speaker not in {None, message.message_id}:
            self._display.end_message()
        if not text.startswith(heard):
            self._display.end_message()
            heard = ""
        self._display.say(text[len(heard) :])
        self._display.end_message()
        self._speaker = None


def find_text(content: Content) -> str:
    """Its text, and the names of what is none."""
    if isinstance(content, str):
        return content
    parts = (
        str(part["text"]) if part.get("type") == "text" else f"[{part.get('type')}]"
        for part in content
    )
    return "\n".join(parts)


def show_json(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value).decode()
