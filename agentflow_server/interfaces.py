"""Everything a user may replace, with its promises in the docstrings."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.models import (
    ActiveRun,
    ApiKey,
    AuditEvent,
    Event,
    Idempotency,
    JsonObject,
    Message,
    NewMessage,
    NewRun,
    Page,
    Principal,
    Quota,
    Revocation,
    Run,
    RunOutcome,
    StartedRun,
    Thread,
    ThreadStatus,
)


class BaseAuth(ABC):
    """Your own authentication: `"auth": {"method": "custom", "path": "auth.custom:MyAuth"}`.

    The class is constructed once, at start-up, with `auth.options` as keyword arguments.
    `authenticate` may be `async`; a synchronous one runs in a worker thread, several at a time.
    It may also take three arguments: `(request, res, credential)`.
    """

    credential_required: ClassVar[bool] = True
    """False: `authenticate` is also called without an Authorization header, with None."""

    @abstractmethod
    def authenticate(
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> dict[str, Any] | None:
        """Say who the caller is.

        Returns a dict with `user_id` (every key reaches the agent's config), or `{}` for "no
        authentication required": an anonymous caller. `None` is a 401. Raise
        `fastapi.HTTPException` to answer in your own words; any other exception is a 503.
        Headers and cookies set on `res` reach the client.
        """
        raise NotImplementedError


class Authenticator(ABC):
    """One way to turn a credential into a principal; chosen by `auth` in agentflow.json."""

    credential_required: bool = True
    """False: called with `credential=None` when the request has no Authorization header."""

    name: ClassVar[str] = "custom"
    """How the method is called in agentflow.json."""

    security_scheme: Mapping[str, Any] | None = None
    """The OpenAPI security scheme object; None when nobody is asked for a credential."""

    @property
    def security_schemes(self) -> Mapping[str, Mapping[str, Any]]:
        """All ways to send a credential, by name; empty when nobody is asked for one."""
        return {} if self.security_scheme is None else {self.name: self.security_scheme}

    def recognises(self, credential: HTTPAuthorizationCredentials) -> bool:
        """Whether this method is responsible for the credential, judged by its form alone.

        Of several methods the first that recognises a credential decides; its "no" is final.
        """
        return True

    async def open(self) -> None:
        """Called once, on the server's event loop, before the first request."""

    async def close(self) -> None:
        """Called once, after the last request."""

    def problems(self) -> Sequence[str]:
        """What keeps it from working right now, such as an issuer whose keys cannot be had."""
        return ()

    @abstractmethod
    async def authenticate(
        self,
        request: HTTPConnection,
        response: Response,
        credential: HTTPAuthorizationCredentials | None,
    ) -> Principal:
        """Raises NotAuthenticated, AuthUnavailable, or a custom backend's own HTTPException."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What an agent is told about the run it is driven for.

    `config` is what a function agent sees: allowed client keys, then claims, then server keys
    (`thread_id`, `run_id`, `agent`, `user`, `user_id`), the later winning. `client_config` holds
    the allowed client keys alone, for frameworks that have a place of their own for them.
    All three are private copies: an agent may change them.
    """

    thread_id: str
    run_id: str
    agent: str
    principal: Principal
    config: JsonObject
    client_config: JsonObject = field(default_factory=dict)


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


AgentEvent = TextDelta | MessageCompleted | ToolStarted | ToolCompleted | CustomEvent


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

    async def forget(self, thread_id: str) -> None:
        """Delete what the framework stored for the thread. Called again after a failure."""

    async def open(self) -> None:
        """Called once, on the server's event loop, before the first run."""

    async def close(self) -> None:
        """Called once, after the last run."""


class Store(ABC):
    """Threads, messages, runs and events, durable when a method returns.

    Every method on user data takes the owner: what belongs to another owner raises NotFound or is
    not listed. Methods without an owner are for the engine, which holds a run's lease: a write
    with a stale lease changes nothing and raises LeaseLost. Any method raises StoreUnavailable
    when the database cannot be used.
    """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open, and migrate. Raises ConfigError when the database is not ours to use."""

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None:
        """Close after everything accepted so far is written."""

    @abstractmethod
    async def ping(self) -> None:
        """Raises StoreUnavailable."""

    # Threads

    @abstractmethod
    async def create_thread(
        self,
        owner: str,
        thread_id: str,
        *,
        metadata: JsonObject,
        reuse: bool = False,
        idempotency: Idempotency | None = None,
    ) -> Thread:
        """Raises IdTaken when the id exists, whoever has it.

        With `reuse`, an existing thread of this owner is returned unchanged. A known idempotency
        key returns the thread it made, as it is now; IdempotencyMismatch if the digest differs.
        """

    @abstractmethod
    async def get_thread(self, owner: str, thread_id: str) -> Thread:
        """Raises NotFound."""

    @abstractmethod
    async def list_threads(
        self,
        owner: str,
        *,
        limit: int,
        cursor: str | None = None,
        status: ThreadStatus | None = None,
        metadata: JsonObject | None = None,
    ) -> Page[Thread]:
        """Newest first. `metadata` selects threads that have all these top-level members.

        Raises InvalidRequest when the cursor is not one of ours.
        """

    @abstractmethod
    async def update_thread(
        self,
        owner: str,
        thread_id: str,
        *,
        name: str | None = None,
        metadata: JsonObject | None = None,
    ) -> Thread:
        """Set what is not None; `metadata` is merged by top-level key, a null removes one.

        Raises NotFound.
        """

    @abstractmethod
    async def name_thread(self, thread_id: str, name: str) -> None:
        """Set the name of a thread that has none; otherwise, or if it is gone, do nothing."""

    @abstractmethod
    async def hide_thread(self, owner: str, thread_id: str) -> str | None:
        """First half of a deletion: nobody finds the thread any more, its id stays taken.

        Returns the name of the thread's agent, None if it never ran. Raises NotFound, and
        ThreadBusy while a run of it is pending or running.
        """

    @abstractmethod
    async def purge_thread(self, thread_id: str) -> None:
        """Second half: delete the rows of a hidden thread; nothing happens if there are none."""

    @abstractmethod
    async def list_hidden_threads(self) -> Sequence[tuple[str, str | None]]:
        """(thread_id, agent) of deletions that a crash interrupted."""

    # Runs

    @abstractmethod
    async def start_run(
        self, owner: str, new: NewRun, *, idempotency: Idempotency | None = None
    ) -> StartedRun:
        """Store the user's message and its run in one transaction.

        If the thread is free the run is claimed at once (status `running`, a lease, `active` set),
        else it is `pending`, in order of arrival. The first run fixes the thread's agent.
        Raises NotFound, WrongAgent, ThreadBusy (with `reject_if_busy`), IdempotencyMismatch. A
        known idempotency key changes nothing and returns the run it made, `replayed` set.
        """

    @abstractmethod
    async def claim_run(self, thread_id: str) -> ActiveRun | None:
        """Claim the thread's oldest pending run, unless one is running or none is pending."""

    @abstractmethod
    async def append_events(self, active: ActiveRun, events: Sequence[Event]) -> None:
        """Raises LeaseLost."""

    @abstractmethod
    async def finish_run(
        self,
        active: ActiveRun,
        outcome: RunOutcome,
        messages: Sequence[Message],
        events: Sequence[Event],
        *,
        claim_next: bool = True,
    ) -> ActiveRun | None:
        """End the run, store what it produced, and claim the thread's next run, all in one
        transaction. Returns that next run, None if there is none or with `claim_next=False`.
        Raises LeaseLost."""

    @abstractmethod
    async def interrupted_runs(self) -> Sequence[ActiveRun]:
        """Runs that are `running`: at start-up, those a dead process left behind."""

    @abstractmethod
    async def waiting_threads(self) -> Sequence[str]:
        """Threads with a pending run and none running."""

    @abstractmethod
    async def get_run(self, owner: str, thread_id: str, run_id: str) -> Run:
        """Raises NotFound."""

    @abstractmethod
    async def list_runs(
        self, owner: str, thread_id: str, *, limit: int, cursor: str | None = None
    ) -> Page[Run]:
        """Newest first. Raises NotFound, InvalidRequest (cursor)."""

    @abstractmethod
    async def list_events(self, run_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """Events with `seq > after`, in order. The caller has checked that the run is his."""

    # Messages

    @abstractmethod
    async def list_messages(
        self, owner: str, thread_id: str, *, limit: int, cursor: str | None = None
    ) -> Page[Message]:
        """Oldest first: turn by turn in order of acceptance, each question before its answers.

        Raises NotFound, InvalidRequest (cursor).
        """

    @abstractmethod
    async def run_messages(self, run_id: str) -> Sequence[Message]:
        """The messages of one run, its question first. The caller has checked the run is his."""

    @abstractmethod
    async def history(self, active: ActiveRun, *, limit: int | None) -> Sequence[Message]:
        """What an agent without a memory is given: the thread's messages up to and including
        `active.message`, of earlier turns and this one only; the last `limit` if given."""


class CredentialStore(ABC):
    """API keys and revocations: for authentication and for operators, so without an owner."""

    @abstractmethod
    async def add_api_key(self, key: ApiKey, secret_hash: bytes) -> None:
        """Raises IdTaken."""

    @abstractmethod
    async def find_api_key(self, key_id: str) -> tuple[ApiKey, bytes] | None:
        """The key and the hash of its secret, also when it is revoked or expired."""

    @abstractmethod
    async def list_api_keys(self, user_id: str | None = None) -> Sequence[ApiKey]:
        """All keys, or those of one user, oldest first."""

    @abstractmethod
    async def revoke_api_key(self, key_id: str, at: float) -> bool:
        """Whether there was such a key; a key that is revoked already keeps its time."""

    @abstractmethod
    async def touch_api_keys(self, used: Mapping[str, float]) -> None:
        """Set the last use of keys (key_id → seconds since 1970); never moves one back."""

    @abstractmethod
    async def add_revocation(self, revocation: Revocation) -> None:
        """Twice is the same as once."""

    @abstractmethod
    async def list_revocations(self, now: float) -> Sequence[Revocation]:
        """Those that have not expired."""


class Authorizer(ABC):
    """Decides what an authenticated caller may do."""

    @abstractmethod
    async def authorize(self, principal: Principal, action: str, resource: str | None) -> bool:
        """Whether `principal` may do `action` (`threads:read`, `runs:create`, …).

        `resource` is the id of the thread in the path, if there is one. Anything raised means no.
        """


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a quota after a hit; `reset_after` in seconds."""

    allowed: bool
    quota: Quota
    remaining: int
    reset_after: int


class RateLimiter(ABC):
    """Counts hits. Bounded in memory, whatever keys it is asked about."""

    @abstractmethod
    async def hit(self, key: str, quota: Quota) -> Allowance:
        """Count one hit of `key`. Never raises: a limiter that cannot count allows, and logs."""

    @abstractmethod
    async def peek(self, key: str, quota: Quota) -> Allowance:
        """What is left, without counting."""

    async def open(self) -> None:
        """Called once, on the server's event loop."""

    async def close(self) -> None:
        """Called once, at the end."""


class AuditLog(ABC):
    """Writes down security decisions, each tied to the one before it."""

    @abstractmethod
    def record(self, event: AuditEvent) -> None:
        """Take note. Never blocks and never raises: a log that cannot be written is reported in
        the server's own log, and requests go on."""

    async def open(self) -> None:
        """Called once, on the server's event loop."""

    async def close(self) -> None:
        """Called once; everything recorded is written."""


class Subscription(ABC):
    """A reader's place at the bus: bounded, so a slow reader loses events, not the server."""

    @abstractmethod
    async def receive(self, max_wait: float) -> Sequence[Event]:
        """Events published since the last call, at least one; `()` after `max_wait` seconds.

        There may be gaps: whoever sees one reads the store.
        """


class EventBus(ABC):
    """Tells readers of a run what was stored. The store is the truth, the bus is only speed."""

    @abstractmethod
    def publish(self, events: Sequence[Event]) -> None:
        """Hand on events of one run that are already stored. Never blocks, never raises."""

    @abstractmethod
    def subscribe(self, run_id: str) -> AbstractAsyncContextManager[Subscription]:
        """Everything published after entering is seen, or its loss is visible as a gap."""


class Engine(ABC):
    """Decides where and when claimed runs are executed."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Settle what a dead process left behind, then take up waiting runs."""

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None:
        """Let running runs finish for the grace period, then stop them; none stays `running`."""

    @abstractmethod
    async def dispatch(self, active: ActiveRun) -> None:
        """Execute the run soon, and after it whatever waits on its thread."""


__all__ = [
    "Agent",
    "AgentEvent",
    "Allowance",
    "AuditLog",
    "Authenticator",
    "Authorizer",
    "BaseAuth",
    "CredentialStore",
    "CustomEvent",
    "Engine",
    "EventBus",
    "MessageCompleted",
    "Quota",
    "RateLimiter",
    "RunContext",
    "Store",
    "Subscription",
    "TextDelta",
    "ToolCompleted",
    "ToolStarted",
]
