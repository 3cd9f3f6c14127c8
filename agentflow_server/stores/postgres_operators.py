"""What operators ask: PostgreSQL's side of it."""

from collections.abc import Mapping
from datetime import datetime

from agentflow_server.models import NewRun, OwnedRun, Page, Run, RunStatus
from agentflow_server.stores import operators
from agentflow_server.stores.operators import to_postgres
from agentflow_server.stores.postgres_connections import Connection
from agentflow_server.stores.rows import read_run

_FIND_RUN = to_postgres(operators.FIND_RUN)
FIND_RETRY = to_postgres(operators.FIND_RETRY)
# Counting a very long table takes minutes; the database knows about how long it is.
_COUNT = """
    SELECT CASE WHEN reltuples < 1000000 THEN (SELECT count(*) FROM {table})
        ELSE reltuples::bigint END
    FROM pg_class WHERE oid = '{table}'::regclass"""


async def find_run(connection: Connection, run_id: str) -> tuple[str, Run] | None:
    row = await (await connection.execute(_FIND_RUN, (run_id,))).fetchone()
    return None if row is None else (row[0], read_run(row[1:]))


async def list_all_runs(
    connection: Connection,
    *,
    status: RunStatus | None = None,
    owner: str | None = None,
    thread_id: str | None = None,
    before: datetime | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page[OwnedRun]:
    wanted = operators.Selection(
        status=status, owner=owner, thread_id=thread_id, before=before, limit=limit, cursor=cursor
    )
    found = await connection.execute(to_postgres(wanted.sql), wanted.values)
    return wanted.read(await found.fetchall())


async def read_retry(connection: Connection, run_id: str) -> tuple[str, NewRun]:
    found = await connection.execute(FIND_RETRY, (run_id,))
    return operators.read_retry(await found.fetchone())


async def count_rows(connection: Connection) -> Mapping[str, int]:
    runs = await connection.execute(operators.COUNT_RUNS)
    return operators.read_counts(
        await runs.fetchall(),
        threads=await _count(connection, "threads"),
        messages=await _count(connection, "messages"),
        events=await _count(connection, "run_events"),
    )


async def _count(connection: Connection, table: str) -> int:
    return await _fetch_number(connection, _COUNT.format(table=table))


async def _fetch_number(connection: Connection, sql: str) -> int:
    row = await (await connection.execute(sql)).fetchone()
    assert row is not None  # noqa: S101 – an aggregate, and tables that are there
    return int(row[0])
