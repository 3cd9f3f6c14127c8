"""Deletes what nobody needs any more, for as long as the server runs."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Self

from agentflow_server.errors import AgentflowError
from agentflow_server.interfaces import GrantStore, Store, WebhookStore
from agentflow_server.runs.runner import Runner

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0
DELIVERY_RETENTION = 30 * 86_400.0
"""Seconds that operators have to see which webhooks were given up."""
ABANDONED_AFTER = 600.0
"""Seconds in which whoever copies or deletes a thread would have been heard of."""
AT_ONCE = 200
"""So few that nobody who writes waits for it."""


async def prune(
    store: Store, webhooks: WebhookStore, grants: GrantStore, event_retention: float | None
) -> int:
    """Delete the events of runs that ended so many seconds ago (None: no events), and whatever has
    expired. Returns of how many runs. Raises StoreUnavailable."""
    now = datetime.now(UTC)
    await webhooks.prune_deliveries(now - timedelta(seconds=DELIVERY_RETENTION))
    while await grants.prune_grants(now):
        pass
    before = None if event_retention is None else now - timedelta(seconds=event_retention)
    pruned = 0
    while number := await store.prune(events_before=before, limit=AT_ONCE):
        pruned += number
    return pruned


class Housekeeper:
    """`async with` cleans up at once, and then every hour."""

    def __init__(
        self,
        store: Store,
        webhooks: WebhookStore,
        grants: GrantStore,
        runner: Runner,
        *,
        event_retention: float | None,
    ) -> None:
        """`event_retention` in seconds; None: events stay as long as their thread."""
        self._runner = runner
        self._store = store
        self._webhooks = webhooks
        self._grants = grants
        self._retention = event_retention

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._go_on(), name="housekeeping")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _prune(self) -> int:
        return await prune(self._store, self._webhooks, self._grants, self._retention)

    async def _go_on(self) -> None:
        while True:
            try:
                if pruned := await self._prune():
                    log.info("deleted the events of %d runs", pruned)
                await self._runner.finish_deletions(older_than=ABANDONED_AFTER)
            except AgentflowError:
                log.exception("cleaning up has to wait")
            await asyncio.sleep(EVERY_SECONDS)
