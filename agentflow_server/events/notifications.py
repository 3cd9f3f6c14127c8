"""PostgreSQL's notifications: one connection that listens, one that sends."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection

from agentflow_server.errors import StoreUnavailable
from agentflow_server.postgres_url import add_defaults

log = logging.getLogger(__name__)

CHANNEL = "agentflow"

BATCH_SECONDS = 0.005
"""A notification costs every commit of the database a moment: what comes so soon after one is told
in the next."""

QUIET_SECONDS = 10.0
"""After so long without a notification the connection is tried."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0
PATIENCE = 10.0
"""Seconds for one statement."""
FAREWELL_SECONDS = 2.0

Connection = AsyncConnection[Any]


async def _connect(url: str) -> Connection:
    return await AsyncConnection.connect(add_defaults(url), autocommit=True)


async def _persist(purpose: str, attempt: Callable[[], Awaitable[None]]) -> None:
    """Try again and again, with longer and longer pauses as long as nothing helps."""
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE
    while True:
        began = loop.time()
        try:
            await attempt()
        except (psycopg.Error, OSError, TimeoutError) as exc:
            if pause == FIRST_PAUSE:
                log.warning("%s: the database is gone: %s", purpose, type(exc).__name__)
        except Exception:  # the top of a background task
            log.exception("%s went wrong", purpose)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 – spreads the load
        went_well = loop.time() - began > 2 * LONGEST_PAUSE
        pause = FIRST_PAUSE if went_well else min(2 * pause, LONGEST_PAUSE)


class Listener:
    """Calls `hear(payload)` for each notification, and `catch_up()` when some may be missing."""

    def __init__(self, url: str, hear: Callable[[str], None], catch_up: Callable[[], None]) -> None:
        self._url = url
        self._hear = hear
        self._catch_up = catch_up
        self._listens = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Returns when it listens. Raises StoreUnavailable."""
        self._task = asyncio.create_task(_persist("listening", self._listen), name="listener")
        try:
            async with asyncio.timeout(PATIENCE):
                await self._listens.wait()
        except TimeoutError:
            await self.close()
            raise StoreUnavailable("The database's notifications cannot be heard") from None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _listen(self) -> None:
        async with await _connect(self._url) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            self._listens.set()
            self._catch_up()
            while True:
                async for notification in connection.notifies(timeout=QUIET_SECONDS):
                    self._hear(notification.payload)
                async with asyncio.timeout(PATIENCE):
                    await connection.execute("SELECT 1")


class Sender:
    """Sends what `take()` returns, soon after each `wake()`."""

    def __init__(self, url: str, take: Callable[[], Sequence[str]]) -> None:
        self._url = url
        self._take = take
        self._unsent: Sequence[str] = ()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(_persist("notifying", self._send_all), name="sender")

    def wake(self) -> None:
        self._woken.set()

    async def close(self) -> None:
        """Send what is left, if that is possible at once."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._collect()
        if not self._unsent:
            return
        try:
            async with asyncio.timeout(FAREWELL_SECONDS), await _connect(self._url) as connection:
                await self._send(connection)
        except (psycopg.Error, OSError, TimeoutError):
            log.info("the last notifications are not sent: readers look into the store anyway")

    async def _send_all(self) -> None:
        async with await _connect(self._url) as connection:
            while True:
                await self._send(connection)
                await asyncio.sleep(BATCH_SECONDS)
                await self._woken.wait()

    def _collect(self) -> None:
        self._woken.clear()
        self._unsent = (*self._unsent, *self._take())

    async def _send(self, connection: Connection) -> None:
        self._collect()
        if self._unsent:
            async with asyncio.timeout(PATIENCE):
                await connection.execute(
                    "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload",
                    (CHANNEL, list(self._unsent)),
                )
            self._unsent = ()
