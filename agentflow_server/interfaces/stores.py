"""Where everything is kept."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Self

from agentflow_server.models import (
    ActiveRun,
    Answer,
    ApiKey,
    CopyPoint,
    Event,
    Idempotency,
    JsonObject,
    Message,
    NewRun,
    OwnedInterrupt,
    Page,
    PendingInterrupt,
    QueueState,
    ResumedRun,
    Revocation,
    Run,
    RunOutcome,
    StartedRun,
    Stop,
    Thread,
    ThreadCopy,
    ThreadStatus,
)


class Store(ABC):
    """Threads, messages, runs and events, durable when a method returns.

    Every method on user data takes the owner: what belongs to another owner raises NotFound or is
    not listed. Methods without an owner are for the engine, which holds a run's lease: a write
    with a stale lease changes nothing and raises LeaseLost. Any method raises StoreUnavailable
    when the database cannot be used. `runs_per_owner`, if the store is given one, is how many runs
    of one owner are running at a time.
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
    async def list_hidden_threads(
        self, *, older_than: float = 0.0
    ) -> Sequence[tuple[str, str | None]]:
        """(thread_id, agent) of deletions and copies that a crash interrupted, as far as can be
        seen: nothing was heard of them for `older_than` seconds.

        From then on the caller deletes them: a copy that somebody is still at cannot be finished.
        """

    @abstractmethod
    async def begin_copy(
        self,
        owner: str,
        thread_id: str,
        new_thread_id: str,
        *,
        metadata: JsonObject,
        idempotency: Idempotency | None = None,
    ) -> ThreadCopy:
        """First half of a copy: a hidden thread with the source's agent and metadata, into which
        `metadata` is merged by top-level key; a null removes one.

        Whoever cannot finish it purges it. Raises NotFound, IdTaken, IdempotencyMismatch. A known
        idempotency key changes nothing, `replayed` is set.
        """

    @abstractmethod
    async def finish_copy(
        self,
        owner: str,
        copy: ThreadCopy,
        *,
        point: CopyPoint | None = None,
        unchanged: bool = False,
        idempotency: Idempotency | None = None,
    ) -> Thread:
        """Second half: copy the name, and `copy.runs` with their messages but no events, and reveal
        the thread.

        With a `point` (a run of the copy's) what comes after it is left out; of a "question" alone
        the run is `cancelled`. Without one, a run of the source that can be resumed can be in the
        copy as well. Only that one keeps its claims and config.
        Raises NotFound when the source is gone or the point is none of the copy, ThreadBusy when
        it has to be `unchanged` and a run has begun since `begin_copy`, StoreUnavailable when the
        copy is being deleted. If the idempotency key was used meanwhile, the other thread is
        returned, and this one stays hidden.
        """

    # Runs

    @abstractmethod
    async def start_run(
        self,
        owner: str,
        new: NewRun,
        *,
        idempotency: Idempotency | None = None,
        claim: bool = True,
    ) -> StartedRun:
        """Store the user's message and its run in one transaction.

        If the thread is free, its owner has not as many running runs as the store allows, and the
        caller can `claim`, the run is claimed at once (status `running`, a lease, `active` set),
        else it is `pending`, in order of arrival. The first run fixes the thread's agent. On a
        busy thread `on_busy` "reject" raises ThreadBusy; "interrupt" and "rollback" do to every
        unfinished run, but for delayed ones, what `stop_run` does. A run with `start_after` is pending in any case.
        Raises NotFound, WrongAgent, ThreadBusy, IdempotencyMismatch. A known idempotency key
        changes nothing and returns the run it made, `replayed` set.
        """

    @abstractmethod
    async def claim_next(self, *, lease: str | None = None) -> ActiveRun | None:
        """Claim the next run of whichever thread waits longest and may go on: none of its runs is
        running, and its owner has not as many of them as the store allows.

        Whoever chooses the `lease` can look for the run with `find_running` when the database gave
        no answer. A run that has begun before keeps its `started_at`, and may have to be stopped.

        From then on an interrupted run before it cannot be resumed.
        """

    @abstractmethod
    async def take_over(self, active: ActiveRun) -> ActiveRun:
        """The same run under a new lease, one more attempt. Raises LeaseLost."""

    @abstractmethod
    async def put_back(self, active: ActiveRun) -> None:
        """Make the run `pending` again, before all others of its thread; one more attempt.

        Raises LeaseLost.
        """

    @abstractmethod
    async def release_delayed(self, until: datetime) -> tuple[Sequence[str], datetime | None]:
        """Put delayed runs whose time is not after `until` at the end of their thread's line.

        Returns their threads, and when the next one's time comes.
        """

    @abstractmethod
    async def stop_run(self, owner: str, thread_id: str, run_id: str, how: Stop) -> Run:
        """A pending run ends at once: `cancelled`, with a `run.cancelled` event. A running one is
        marked (`ActiveRun.stopping`): whoever executes it ends it. So is a pending one that has
        begun before and is rolled back: whoever claims it lets its agent forget the turn. A
        "rollback" beats a "cancel".

        Raises NotFound, RunEnded (an interrupted run has ended, too).
        """

    @abstractmethod
    async def resume_run(
        self, owner: str, thread_id: str, run_id: str, answer: Answer, *, claim: bool = True
    ) -> ResumedRun:
        """Let an interrupted run go on, with one more element of `answers`.

        It is `running` again if its owner has not as many running runs as the store allows and
        the caller can `claim`; else it is `pending`, before all others of its thread. Of two that answer the same question one gets NotInterrupted. Raises NotFound,
        NotInterrupted (also when a later run has started), and InvalidRequest when the answer is
        not one for each question, or an approval's is neither a yes nor a no.
        """

    @abstractmethod
    async def list_interrupts(
        self, owner: str, *, limit: int, cursor: str | None = None
    ) -> Page[PendingInterrupt]:
        """Runs that can be resumed, newest question first. Raises InvalidRequest (cursor)."""

    @abstractmethod
    async def list_all_interrupts(
        self, *, limit: int, cursor: str | None = None
    ) -> Page[OwnedInterrupt]:
        """The same of all owners, for callers who may answer all. Raises InvalidRequest (cursor)."""

    @abstractmethod
    async def find_asker(self, thread_id: str, run_id: str) -> str | None:
        """The owner of a run that can be resumed; for callers who may answer all."""

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
        transaction. Returns that next run, None if there is none or with `claim_next=False`. Its
        lease is `lease_after` the one of this run.

        Messages of a run that was resumed come after those it had. A run that is `interrupted`
        can be resumed until another one of its thread starts. Raises LeaseLost.
        """

    @abstractmethod
    async def interrupted_runs(self) -> Sequence[ActiveRun]:
        """Runs that are `running`: at start-up, those a dead process left behind."""

    async def find_running(self, lease: str) -> ActiveRun | None:
        """The run that is `running` under this lease."""
        running = await self.interrupted_runs()
        return next((active for active in running if active.lease == lease), None)

    @abstractmethod
    async def read_queue(self) -> QueueState:
        """How many runs there are to do, of all owners."""

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
        """Events with `seq > after`, in order; of a run whose events were pruned there are none.

        The caller has checked that the run is his.
        """

    @abstractmethod
    async def prune(self, *, events_before: datetime | None, limit: int) -> int:
        """Delete the events of at most `limit` runs that ended before that moment, and whatever
        has expired besides, in a transaction that keeps nobody waiting.

        Returns of how many runs; 0 when none is left. The runs and their messages stay, and one
        that can be resumed keeps its events.
        """

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
