"""What a server answers besides the nouns of `models`."""

from typing import Any

from pydantic import Field

from agentflow_server.models import Frozen, Interrupt, JsonObject, Message, RunStatus


class Turn(Frozen):
    """What the agent answered. `message` is the last one of the assistant, `messages` are all that
    it said; `interrupts` is what an `interrupted` run waits for."""

    thread_id: str
    run_id: str
    status: RunStatus
    message: Message | None
    messages: list[Message]
    interrupts: list[Interrupt] = Field(default=[])

    @property
    def text(self) -> str:
        """The answer as text; empty if there is none."""
        content = self.message.content if self.message is not None else ""
        if isinstance(content, str):
            return content
        return "".join(str(part["text"]) for part in content if part.get("type") == "text")


class State(Frozen):
    """A state of a thread's graph, and what comes next."""

    values: Any
    next: list[str]
    interrupts: list[Any]
    checkpoint_id: str | None
    parent_checkpoint_id: str | None
    created_at: str | None
    metadata: JsonObject


class AgentInfo(Frozen):
    """An agent; `default` is the one that answers when a message names none."""

    name: str
    kind: str
    default: bool


class AgentList(Frozen):
    data: list[AgentInfo]
