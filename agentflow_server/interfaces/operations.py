"""What operators may see and do, whoever owns it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime

from agentflow_server.models import NewRun, OwnedRun, Page, Run, RunStatus


class OperatorStore(ABC):
    """For operators' commands: without an owner, and never for a request.

    Threads that are being deleted or copied are not there. Any method raises StoreUnavailable.
    """

    @abstractmethod
    async def find_run(self, run_id: str) -> tuple[str, Run] | None:
        """Its owner, and the run."""

    @abstractmethod
    async def list_all_runs(
        self,
        *,
        status: RunStatus | None = None,
        owner: str | None = None,
        thread_id: str | None = None,
        before: datetime | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> Page[OwnedRun]:
        """Newest first, in the order of their ids (which are UUIDs of version 7); `before`: only
        those that were made earlier, to the millisecond.

        Raises InvalidRequest when the cursor is not one of this list.
        """

    @abstractmethod
    async def read_retry(self, run_id: str) -> tuple[str, NewRun]:
        """The owner, and a new run with the same message, agent, claims, config and webhook, for
        `start_run`, with ids of its own.

        Nothing is stored. The run must be `error`, `timeout` or `cancelled`, and the last one of
        its thread, where the new one would wait for nothing. Raises NotFound (also when the message
        was rolled back), Conflict.
        """

    @abstractmethod
    async def count_rows(self) -> Mapping[str, int]:
        """`threads`, `runs_pending` and so on for each status, `messages`, `events`.

        A number of more than a million may be an estimate.
        """
