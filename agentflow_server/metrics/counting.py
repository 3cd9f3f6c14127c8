"""What there is to count, and the metrics that count nothing."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from agentflow_server.models import QueueState, RunStatus

AuthResult = Literal["success", "failure", "error"]
Operation = Literal["read", "write"]
WebhookResult = Literal["delivered", "failed", "given_up"]


class Metrics:
    """Counts nothing: it stands in where metrics are off.

    Every method may be called from any thread, and none raises.
    """

    is_on: ClassVar[bool] = False
    """Whether it is worth looking at the clock for a duration."""

    def request(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        """A request ended. `scope` after routing, `status` 0 if nothing was answered."""

    def run_started(self) -> None:
        """This process begins to execute a run; `run_ended` must follow."""

    def run_ended(self, status: RunStatus, seconds: float) -> None: ...

    def event_delivered(self, seconds: float) -> None:
        """An event that was stored `seconds` ago is handed to a reader."""

    def authenticated(
        self, method: str | None, result: AuthResult, reason: str | None = None
    ) -> None:
        """A credential was judged: the same words as in the audit log."""

    def database(self, operation: Operation, seconds: float) -> None:
        """One statement or transaction, the time in its queue included."""

    def webhook(self, result: WebhookResult) -> None:
        """A webhook was tried: what `failed` is tried again, what was `given_up` is not."""

    def queue(self, state: QueueState | None) -> None:
        """None: the database did not tell."""


class CountedMetrics(Metrics):
    """Metrics that can be read."""

    is_on = True

    @abstractmethod
    def expose(self, accept: str) -> tuple[bytes, str]:
        """All of it in a format that the `Accept` header allows, and its content type."""
