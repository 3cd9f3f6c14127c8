"""The error tree. Every class has a stable `code`; none knows about HTTP.

AgentflowError
├── ConfigError            the server cannot start as configured
│   ├── DatabaseInUse      another server has the database open
│   └── DatabaseOutdated   the database has to be upgraded first
├── NotAuthenticated       nobody, or nobody we believe
├── AuthUnavailable        the authentication itself is broken or slow
├── InvalidRequest         the request contradicts the contract
├── Forbidden              the caller is known, and may not do this
├── TooManyRequests        a rate limit is used up
├── NotFound               no such thing, or not yours
├── Conflict
│   ├── IdTaken
│   ├── ThreadBusy
│   ├── WrongAgent
│   ├── RunEnded
│   ├── NotInterrupted
│   ├── RequestInProgress
│   └── IdempotencyMismatch
├── RunFailed              the agent did not finish its turn
├── NotApproved            a human said no to what the agent wanted to do
├── ConnectionUnavailable  a tool gets no credential for another API
├── LeaseLost              another worker owns the run now
├── ServerStopping         the run goes on at the next start
└── StoreUnavailable       the database cannot be used right now
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar


class AgentflowError(Exception):
    """Base of everything this package raises on purpose.

    The message is a constant or built from identifiers of ours: it may be shown to a client.
    """

    code: ClassVar[str] = "internal_error"


class ConfigError(AgentflowError):
    """The server cannot start as configured; `problems` holds one line each."""

    code = "config_error"

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: Sequence[str] = problems
        self.causes: Sequence[BaseException] = ()

    @classmethod
    def joined(cls, errors: Sequence["ConfigError"]) -> "ConfigError":
        """One error with all their problems; `causes` keeps what users' code raised."""
        joined = cls(*(problem for error in errors for problem in error.problems))
        found = (cause for error in errors for cause in (error.__cause__, *error.causes))
        joined.causes = [cause for cause in found if cause is not None]
        return joined


class DatabaseInUse(ConfigError):
    """Another server has the database open."""

    code = "database_in_use"


class DatabaseOutdated(ConfigError):
    """The database was made by an older version, and whoever opens it is not to upgrade it."""

    code = "database_outdated"


class NotAuthenticated(AgentflowError):
    """No credential, or one that is refused.

    `str(error)` is sent to the client; `reason` is a code for the log and is never sent.
    """

    code = "not_authenticated"

    MISSING: ClassVar[str] = "Not authenticated"
    INVALID: ClassVar[str] = "Could not validate credentials"
    EXPIRED: ClassVar[str] = "Token has expired"

    def __init__(self, message: str = INVALID, *, reason: str, token_sent: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.token_sent = token_sent


class AuthUnavailable(AgentflowError):
    """The authentication backend failed or did not answer in time. Never means "allow"."""

    code = "auth_unavailable"

    def __init__(self, *, reason: str, retry_after: int = 5) -> None:
        super().__init__("Authentication is temporarily unavailable")
        self.reason = reason
        self.retry_after = retry_after


class Forbidden(AgentflowError):
    """The caller is known and may not do this; `scope` is the one he lacks, if it is that."""

    code = "forbidden"

    def __init__(self, message: str = "Not allowed", *, scope: str | None = None) -> None:
        super().__init__(message)
        self.scope = scope


class TooManyRequests(AgentflowError):
    """A rate limit is used up; `retry_after` in seconds."""

    code = "rate_limited"

    def __init__(self, *, retry_after: int) -> None:
        super().__init__("Too many requests")
        self.retry_after = retry_after


class InvalidRequest(AgentflowError):
    """The request contradicts the contract; the message never repeats what was sent."""

    code = "invalid_request"


class NotFound(AgentflowError):
    """There is no such thing, or it belongs to somebody else: the two look alike."""

    code = "not_found"


class Conflict(AgentflowError):
    """The request is fine, the current state is not."""

    code = "conflict"


class IdTaken(Conflict):
    """The chosen id exists already, whoever has it."""

    code = "id_taken"


class ThreadBusy(Conflict):
    """The thread has a run that has not ended."""

    code = "thread_busy"


class WrongAgent(Conflict):
    """The thread belongs to another agent."""

    code = "wrong_agent"


class RunEnded(Conflict):
    """The run has ended: there is nothing to stop."""

    code = "run_ended"


class NotInterrupted(Conflict):
    """The run asks nothing, was answered already, or the thread has gone on without it."""

    code = "not_interrupted"


class RequestInProgress(Conflict):
    """The first request with this idempotency key has not ended."""

    code = "request_in_progress"


class IdempotencyMismatch(Conflict):
    """The idempotency key was used for a different request."""

    code = "idempotency_mismatch"


class RunFailed(AgentflowError):
    """The agent did not finish its turn; `details` go into the problem document (ids only)."""

    code = "run_failed"

    def __init__(self, message: str, *, code: str, details: Mapping[str, str]) -> None:
        super().__init__(message)
        self.run_code = code
        self.details = details


class NotApproved(AgentflowError):
    """A human said no to what the agent wanted to do; `comment` is what he said with it.

    An agent may catch it. Uncaught it ends the run, with this code.
    """

    code = "not_approved"

    def __init__(self, comment: str | None = None) -> None:
        super().__init__("Not approved")
        self.comment = comment


class ConnectionUnavailable(AgentflowError):
    """A tool gets no credential for another API; `reason` is a code.

    Neither it nor the message holds a secret, or what the other side has said.
    """

    code = "connection_unavailable"

    REASONS: ClassVar[Mapping[str, str]] = {
        "unknown": "there is none of this name",
        "no_run": "the run has ended, or is executed elsewhere",
        "unreachable": "the authorization server cannot be reached, or is broken",
        "refused": "the authorization server refuses us",
        "unreadable": "what the authorization server answers cannot be used",
        "closing": "the server is stopping",
    }

    def __init__(self, connection: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"connection {connection!r}: {self.REASONS[reason]}{hint}")
        self.connection = connection
        self.reason = reason


class LeaseLost(AgentflowError):
    """The run was taken over or ended elsewhere: whoever gets this stops and writes nothing."""

    code = "lease_lost"


class ServerStopping(AgentflowError):
    """The server stops before the run has ended; what is stored goes on at the next start."""

    code = "server_stopping"

    def __init__(self) -> None:
        super().__init__("The server is stopping; the message is stored and will be answered")


class StoreUnavailable(AgentflowError):
    """The database cannot be used right now."""

    code = "store_unavailable"
