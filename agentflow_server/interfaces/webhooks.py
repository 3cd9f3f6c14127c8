"""What is still to be told about runs that have ended."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from datetime import datetime

from agentflow_server.models import Delivery, Undelivered


class WebhookStore(ABC):
    """Deliveries of webhooks: for the sender and for operators, so without an owner.

    A store that is a `Store` as well stores a delivery in the transaction in which a run with a
    `webhook` ends, whatever ends it; a run that is resumed leaves one more when it ends again.
    Hiding a thread deletes its deliveries. Any method raises StoreUnavailable.
    """

    @abstractmethod
    async def claim_delivery(
        self, *, seconds: float, max_bytes: int, skip: Collection[str] = ()
    ) -> Delivery | None:
        """The one that has been due for longest, to none of the hosts in `skip`; None if there is
        none.

        For so many seconds nobody else gets it; then it is due again. With more than `max_bytes`
        of messages it has none.
        """

    @abstractmethod
    async def next_delivery(self, *, skip: Collection[str] = ()) -> float | None:
        """Seconds until there is one to claim, 0 or less if there is; None if there is none."""

    @abstractmethod
    async def end_delivery(self, delivery: Delivery) -> None:
        """It has arrived, and is forgotten. Nothing happens if the lease is not its lease now."""

    @abstractmethod
    async def postpone_delivery(
        self, delivery: Delivery, failure: str, *, seconds: float | None
    ) -> None:
        """It has not arrived: it is due in so many seconds or, with None, given up.

        Nothing happens if the lease is not its lease now.
        """

    @abstractmethod
    async def list_deliveries(self, *, limit: int) -> Sequence[Undelivered]:
        """Those that have not arrived, by the end of their runs, the newest first."""

    @abstractmethod
    async def retry_delivery(self, delivery_id: str) -> bool:
        """Let it be due now, with all its attempts. Whether there is such a delivery."""

    @abstractmethod
    async def prune_deliveries(self, before: datetime) -> int:
        """Forget those that were given up, of runs that ended before. Returns how many."""
