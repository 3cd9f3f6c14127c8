"""Tickets that any of the servers may have issued: SQL for PostgreSQL."""

import time

from pydantic import TypeAdapter

from agentflow_server.errors import TooManyRequests
from agentflow_server.models import Principal
from agentflow_server.stores.postgres import PostgresStore
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.rows import from_seconds, to_text

_PER_CALLER = 32
_RETRY_AFTER = 60

# Who counts a caller's tickets keeps others from adding one meanwhile.
_LOCK_CALLER = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))"
# Each new one also removes some whose time is over, so that they do not pile up.
_PUT = """
    WITH expired AS (
        DELETE FROM tickets WHERE digest IN (
            SELECT digest FROM tickets WHERE expires_at <= %(now)s LIMIT 100
            FOR UPDATE SKIP LOCKED)
    )
    INSERT INTO tickets (digest, owner, principal, expires_at)
    SELECT %(digest)s, %(owner)s, %(principal)s, %(expires_at)s
    WHERE %(most)s > (SELECT count(*) FROM tickets WHERE owner = %(owner)s AND expires_at > %(now)s)"""
_TAKE = "DELETE FROM tickets WHERE digest = %s RETURNING principal, expires_at"

_PRINCIPAL = TypeAdapter(Principal)


class PostgresTickets:
    """Tickets that nobody has used yet, in the store's own database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def put(self, digest: bytes, principal: Principal, expires_at: float) -> None:
        """Raises TooManyRequests when the caller has too many."""
        values = {
            "digest": digest,
            "owner": principal.id,
            "principal": to_text(principal),
            "expires_at": from_seconds(expires_at),
            "now": from_seconds(time.time()),
            "most": _PER_CALLER,
        }

        async def put(connection: Connection) -> bool:
            async with connection.pipeline():
                await connection.execute(_LOCK_CALLER, (principal.id,))
                added = await connection.execute(_PUT, values)
            return added.rowcount > 0

        if not await self._store.write(put):
            raise TooManyRequests(retry_after=_RETRY_AFTER)

    async def take(self, digest: bytes, moment: float) -> Principal | None:
        """Whose it is, unless it expired before `moment`. Of several calls, one gets it."""

        async def take(connection: Connection) -> tuple[str, int] | None:
            return await (await connection.execute(_TAKE, (digest,))).fetchone()

        found = await self._store.write(take)
        if found is None or from_seconds(moment) >= found[1]:
            return None
        return _PRINCIPAL.validate_json(found[0])
