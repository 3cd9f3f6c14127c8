"""What runs a turn, and what it is told about it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from agentflow_server.models import (
    CopyPoint,
    Interrupt,
    JsonObject,
    Message,
    NewMessage,
    Principal,
)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What an agent is told about the run it is driven for.

    `config` is what a function agent sees: allowed client keys, then claims, then server keys
    (`thread_id`, `run_id`, `agent`, `user`, `user_id`), the later winning. `client_config` holds
    the allowed client keys alone, for frameworks that have a place of their own for them.
    All three are private copies: an agent may change them.

    `answers` are those that the run was given, a map (interrupt_id → value) for each time it was
    interrupted; with any, the run goes on where it stopped. `attempt` is above 1 when a server
    that executed it died and it is tried again.
    """

    thread_id: str
    run_id: str
    agent: str
    principal: Principal
    config: JsonObject
    client_config: JsonObject = field(default_factory=dict)
    answers: Sequence[JsonObject] = ()
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the message being written."""

    text: str


@dataclass(frozen=True, slots=True)
class MessageCompleted:
    """A whole message; deltas since the last one, if any, are parts of it."""

    message: NewMessage


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """The framework is about to call a tool."""

    name: str
    call_id: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class ToolCompleted:
    """A tool has returned."""

    name: str
    call_id: str
    result: Any


@dataclass(frozen=True, slots=True)
class CustomEvent:
    """Whatever the agent wants its client to see; `data` is JSON."""

    data: Any


@dataclass(frozen=True, slots=True)
class AgentAsked:
    """The agent waits for a human: the last event of its turn. `Agent.stream` is called again,
    with the answers in the context, when there are any."""

    interrupts: Sequence[Interrupt]


AgentEvent = TextDelta | MessageCompleted | ToolStarted | ToolCompleted | CustomEvent | AgentAsked


class Agent(ABC):
    """An agent of some framework, made servable by an adapter.

    One instance serves many runs at once and keeps nothing of any of them in itself.
    """

    kind: ClassVar[str]
    """What the agent is: `function`, `langgraph`, …; shown by `GET /agents`."""

    remembers: bool = False
    """True: the framework keeps the conversation, and `messages` holds only the new message.
    False: `messages` holds the whole history of the thread, the new message last."""

    reserved: frozenset[str] = frozenset()
    """Config keys that belong to the framework: a claim of that name stays out of the top level
    of the config (it remains visible under `user`), and a client may never send it."""

    @abstractmethod
    def stream(
        self, context: RunContext, messages: Sequence[Message]
    ) -> AsyncGenerator[AgentEvent, None]:
        """Run one turn. Whatever the agent raises passes through; cancellation stops the agent."""

    resumable: bool = False
    """True: after a crash, `stream` with `attempt > 1` goes on from what the framework saved."""

    async def undo(self, thread_id: str, run_id: str) -> None:
        """Make the framework forget the newest run of the thread. Called again after a failure."""

    async def settle(self, run_id: str) -> None:
        """Return when nothing of a stopped run goes on any more: a cancelled synchronous function
        does, since nobody can stop it."""

    async def forget(self, thread_id: str) -> None:
        """Delete what the framework stored for the thread. Called again after a failure."""

    async def open(self) -> None:
        """Called once, on the server's event loop, before the first run."""

    async def close(self) -> None:
        """Called once, after the last run."""


class HasState(ABC):
    """Beside Agent, for one whose framework keeps the states of a thread as checkpoints.

    A state is `{values, next, interrupts, checkpoint_id, parent_checkpoint_id, created_at,
    metadata}`, all of it JSON and nothing of it a claim; without any, `checkpoint_id` is null.
    An agent whose `remembers` is False has none. Nothing here may happen while a run is executed
    on the thread.
    """

    @abstractmethod
    async def get_state(self, thread_id: str) -> JsonObject:
        """The newest one."""

    @abstractmethod
    async def list_history(
        self, thread_id: str, *, limit: int, before: str | None = None
    ) -> list[JsonObject]:
        """Up to `limit` states, the newest first; only those older than the checkpoint `before`."""

    @abstractmethod
    async def fork(self, thread_id: str, checkpoint_id: str) -> CopyPoint | None:
        """Make that checkpoint's state the newest one; it waits for no answer.

        Returns how much of the conversation that state knows, None if no run made it. Raises
        NotFound.
        """

    @abstractmethod
    async def copy(
        self, thread_id: str, new_thread_id: str, runs: Mapping[str, str] | None = None
    ) -> None:
        """Give another thread the same states, and what they wait for. May be called again after
        a failure. `runs` says how its runs (run_id → run_id) are called there."""
