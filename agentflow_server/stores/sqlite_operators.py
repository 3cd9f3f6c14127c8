"""What operators ask: SQLite's side of it. Every function runs inside a caller's transaction."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Mapping
from datetime import datetime

from agentflow_server.models import NewRun, OwnedRun, Page, Run, RunStatus
from agentflow_server.stores import operators
from agentflow_server.stores.rows import read_run


def find_run(connection: sqlite3.Connection, run_id: str) -> tuple[str, Run] | None:
    row = connection.execute(operators.FIND_RUN, (run_id,)).fetchone()
    return None if row is None else (row[0], read_run(row[1:]))


def list_all_runs(
    connection: sqlite3.Connection,
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
    return wanted.read(connection.execute(wanted.sql, wanted.values).fetchall())


def read_retry(connection: sqlite3.Connection, run_id: str) -> tuple[str, NewRun]:
    return operators.read_retry(connection.execute(operators.FIND_RETRY, (run_id,)).fetchone())


def count_rows(connection: sqlite3.Connection) -> Mapping[str, int]:
    return operators.read_counts(
        connection.execute(operators.COUNT_RUNS).fetchall(),
        threads=_count(connection, "threads"),
        messages=_count(connection, "messages"),
        events=_count(connection, "run_events"),
    )


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
