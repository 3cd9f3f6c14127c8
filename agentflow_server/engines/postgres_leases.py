"""Who is alive: leases that are renewed, watched, and given away."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from psycopg import AsyncConnection

from agentflow_server.models import Stop

T = TypeVar("T")

Connection = AsyncConnection[Any]

# The answer says which of the runs are still ours, and which of those somebody wants stopped.
_RENEW = """
    WITH held AS (
        SELECT * FROM unnest(%s::text[], %s::text[]) AS held (lease, run_id)
    ), renewed AS (
        INSERT INTO leases (lease, run_id, renewed_at) SELECT lease, run_id, now() FROM held
        ON CONFLICT (lease) DO UPDATE SET renewed_at = excluded.renewed_at
    )
    SELECT lease, stopping FROM runs JOIN held USING (run_id, lease)"""
_BEATS = """
    SELECT runs.lease, extract(epoch FROM renewed_at)::float8 FROM runs LEFT JOIN leases USING (lease)
    WHERE runs.status = 'running'"""
_FORGET = """
    DELETE FROM leases WHERE NOT EXISTS (
        SELECT 1 FROM runs WHERE runs.run_id = leases.run_id AND runs.lease = leases.lease)"""


class Database(Protocol):
    """Where the runs are: the store's own connections."""

    async def write(self, operation: Callable[[Connection], Awaitable[T]]) -> T:
        """Raises StoreUnavailable."""

    async def read(self, operation: Callable[[Connection], Awaitable[T]]) -> T:
        """Raises StoreUnavailable."""


class Leases:
    """The table of leases. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def renew(self, held: Mapping[str, str]) -> Mapping[str, Stop | None]:
        """Of `held` (lease → run_id) the leases that still hold their run, and how to stop it."""

        async def renew(connection: Connection) -> Mapping[str, Stop | None]:
            found = await connection.execute(_RENEW, (list(held), list(held.values())))
            return dict(await found.fetchall())

        return await self._database.write(renew)

    async def list_beats(self) -> Mapping[str, float | None]:
        """When each lease of a running run was renewed, None if it never was."""

        async def look(connection: Connection) -> Mapping[str, float | None]:
            return dict(await (await connection.execute(_BEATS)).fetchall())

        return await self._database.read(look)

    async def forget_ended(self) -> None:
        await self._database.write(lambda connection: connection.execute(_FORGET))


class Watch:
    """Finds leases that nobody renews any more.

    It trusts its own clock alone, and only what it has seen itself without a break: a server whose
    clock is wrong, a database that was away for a while, or a pause of this very process must not
    look like the death of others.
    """

    def __init__(self, patience: float) -> None:
        """`patience` in seconds."""
        self._patience = patience
        self._looked_at = float("-inf")
        self._seen: dict[str, tuple[float | None, float]] = {}

    def find_dead(self, beats: Mapping[str, float | None], moment: float) -> set[str]:
        """Those of the leases that have been the same for too long; `moment` is now."""
        if moment - self._looked_at > self._patience / 2:
            self._seen.clear()
        self._looked_at = moment
        seen = {}
        for lease, beat in beats.items():
            before, since = self._seen.get(lease, (beat, moment))
            seen[lease] = (beat, since if before == beat else moment)
        self._seen = seen
        return {lease for lease, (_, since) in seen.items() if moment - since >= self._patience}
