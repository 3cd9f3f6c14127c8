"""What operators ask of any store of ours: SQL, and what its rows mean.

The SQL is SQLite's; `to_postgres` says the same to the other.
"""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from pydantic_core import from_json
from uuid_utils import uuid7

from agentflow_server.errors import Conflict, NotFound
from agentflow_server.models import NewRun, OwnedRun, Page, RunStatus
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.rows import RUN_COLUMNS, Row, read_run
from agentflow_server.stores.rules import no_run

FIND_RUN = f"""
    SELECT runs.owner, {RUN_COLUMNS} FROM runs JOIN threads USING (thread_id)
    WHERE run_id = ? AND hidden = 0"""
# A run whose time has not come is after all others, but was not necessarily sent after them.
FIND_RETRY = """
    SELECT runs.owner, runs.status, EXISTS (SELECT 1 FROM runs AS later
            WHERE later.thread_id = runs.thread_id AND later.turn > runs.turn
                AND later.start_after IS NULL),
        runs.thread_id, runs.agent, content, messages.metadata, claims, config, webhook
    FROM runs JOIN threads USING (thread_id)
    LEFT JOIN messages ON messages.thread_id = runs.thread_id AND messages.turn = runs.turn
        AND messages.position = 0
    WHERE runs.run_id = ? AND hidden = 0"""
COUNT_RUNS = "SELECT status, count(*) FROM runs GROUP BY status"

# Few among very many: what is found through an index of their own.
_UNFINISHED = {
    "running": "run_id IN (SELECT run_id FROM runs WHERE status = 'running')",
    "pending": """run_id IN (
        SELECT run_id FROM runs WHERE status = 'pending' AND start_after IS NULL
        UNION ALL SELECT run_id FROM runs WHERE status = 'pending' AND start_after IS NOT NULL)""",
}
_RETRIED = ("error", "timeout", "cancelled")


def to_postgres(sql: str) -> str:
    return sql.replace("?", "%s").replace("hidden = 0", "NOT hidden")


class Selection:
    """Runs of all owners: the statement to find a page of them."""

    def __init__(
        self,
        *,
        status: RunStatus | None,
        owner: str | None,
        thread_id: str | None,
        before: datetime | None,
        limit: int,
        cursor: str | None,
    ) -> None:
        """Raises InvalidRequest (cursor)."""
        self._listing = f"runs:{(status, owner, thread_id, before)}"
        self._limit = limit
        conditions, self.values = ["hidden = 0"], list[Any]()
        if status in _UNFINISHED:
            conditions.append(_UNFINISHED[status])
            status = None
        place = None if cursor is None else decode_cursor(self._listing, cursor, str)[0]
        for condition, value in (
            ("runs.status = ?", status),
            ("threads.owner = ?", owner),
            ("threads.thread_id = ?", thread_id),
            ("run_id < ?", place),
            ("run_id < ?", None if before is None else _first_id(before)),
        ):
            if value is not None:
                conditions.append(condition)
                self.values.append(value)
        self.values.append(limit + 1)
        self.sql = f"""
            SELECT runs.owner, {RUN_COLUMNS} FROM runs JOIN threads USING (thread_id)
            WHERE {" AND ".join(conditions)} ORDER BY run_id DESC LIMIT ?"""

    def read(self, rows: Sequence[Row]) -> Page[OwnedRun]:
        found = [OwnedRun(owner=owner, run=read_run(run)) for owner, *run in rows[: self._limit]]
        more = len(rows) > self._limit
        next_cursor = encode_cursor(self._listing, found[-1].run.run_id) if more else None
        return Page(data=found, next_cursor=next_cursor)


def _first_id(moment: datetime) -> str:
    """How an id begins that is made then."""
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def read_retry(row: Row | None) -> tuple[str, NewRun]:
    """Raises NotFound, Conflict."""
    if row is None:
        raise no_run()
    owner, status, is_passed, thread_id, agent, content, *texts, webhook = row
    if status not in _RETRIED:
        raise Conflict(f"Only a run that has failed can be retried; this one is {status!r}")
    if is_passed:
        raise Conflict("The run is not the last one of its thread")
    if content is None:
        raise NotFound("The message was rolled back")
    metadata, claims, config = map(from_json, texts)
    if claims is None:
        raise Conflict("The run is in a copy of its thread, and has no claims there")
    return owner, NewRun(
        run_id=str(uuid7()),
        thread_id=thread_id,
        agent=agent,
        message_id=str(uuid7()),
        content=from_json(content),
        metadata=metadata,
        claims=claims,
        config=config,
        on_busy="reject",
        webhook=webhook,
    )


def read_counts(
    runs: Sequence[Row], *, threads: int, messages: int, events: int
) -> Mapping[str, int]:
    found = {f"runs_{status}": 0 for status in get_args(RunStatus)}
    found |= {f"runs_{status}": number for status, number in runs}
    return {"threads": threads, **found, "messages": messages, "events": events}
