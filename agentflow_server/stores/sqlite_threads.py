"""Threads: SQL for SQLite. Every function runs inside a transaction of the caller's."""

# ruff: noqa: S608 – SQL is put together from constants of ours only.

import sqlite3
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from agentflow_server.errors import IdTaken, InvalidRequest, ThreadBusy
from agentflow_server.models import Idempotency, JsonObject, Page, Thread, ThreadStatus
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.rows import (
    THREAD_COLUMNS,
    Row,
    from_seconds,
    now,
    read_thread,
    to_text,
)
from agentflow_server.stores.rules import MAX_FILTERS, Made, no_thread
from agentflow_server.stores.sqlite_idempotency import find_made, remember
from agentflow_server.stores.sqlite_webhooks import FORGET

_INSERT = """
    INSERT INTO threads (thread_id, owner, status, metadata, created_at, updated_at)
    VALUES (?, ?, 'idle', ?, ?, ?) ON CONFLICT (thread_id) DO NOTHING"""
_GET = f"SELECT {THREAD_COLUMNS} FROM threads WHERE thread_id = ? AND owner = ? AND hidden = 0"
_UPDATE = "UPDATE threads SET name = ?, metadata = ?, updated_at = ? WHERE thread_id = ?"
_NAME = """
    UPDATE threads SET name = ?, updated_at = ?
    WHERE thread_id = ? AND name IS NULL AND hidden = 0"""
IS_BUSY = """(
    EXISTS (SELECT 1 FROM runs WHERE thread_id = threads.thread_id AND status = 'running')
    OR EXISTS (SELECT 1 FROM runs
        WHERE thread_id = threads.thread_id AND status = 'pending' AND start_after IS NULL))"""
_GET_TO_HIDE = f"""
    SELECT agent, {IS_BUSY} FROM threads
    WHERE thread_id = ? AND owner = ? AND hidden = 0"""
# A hidden thread that is busy is a copy that somebody is filling.
_CONDEMN = """
    UPDATE threads SET status = 'idle' WHERE hidden = 1 AND status = 'busy' AND updated_at <= ?"""
_LEFT_BEHIND = "SELECT thread_id, agent FROM threads WHERE hidden = 1 AND updated_at <= ?"

# How json_each calls the types of JSON that a condition can compare by itself.
_COMPARABLE = {str: "('text')", int: "('integer', 'real')", float: "('integer', 'real')"}
_ONLY_TYPE = {type(None): "('null')", dict: "('object')", list: "('array')"}


def create_thread(
    connection: sqlite3.Connection,
    owner: str,
    thread_id: str,
    *,
    metadata: JsonObject,
    reuse: bool = False,
    idempotency: Idempotency | None = None,
) -> Thread:
    moment = now()
    if idempotency and (made := find_made(connection, owner, idempotency, moment)):
        return get_thread(connection, owner, made.thread_id)
    row = (thread_id, owner, to_text(metadata), moment, moment)
    inserted = connection.execute(_INSERT, row).rowcount
    found = connection.execute(_GET, (thread_id, owner)).fetchone()
    if not inserted and not (reuse and found):
        raise IdTaken("The thread_id is taken")
    if idempotency:
        remember(connection, owner, idempotency, Made(thread_id, None), moment)
    return read_thread(found)


def get_thread(connection: sqlite3.Connection, owner: str, thread_id: str) -> Thread:
    row = connection.execute(_GET, (thread_id, owner)).fetchone()
    if row is None:
        raise no_thread()
    return read_thread(row)


def update_thread(
    connection: sqlite3.Connection,
    owner: str,
    thread_id: str,
    *,
    name: str | None = None,
    metadata: JsonObject | None = None,
) -> Thread:
    thread = get_thread(connection, owner, thread_id)
    merged = thread.metadata | (metadata or {})
    for key, value in (metadata or {}).items():
        if value is None:
            del merged[key]
    new_name = thread.name if name is None else name
    connection.execute(_UPDATE, (new_name, to_text(merged), now(), thread_id))
    return get_thread(connection, owner, thread_id)


def name_thread(connection: sqlite3.Connection, thread_id: str, name: str) -> None:
    connection.execute(_NAME, (name, now(), thread_id))


def hide_thread(connection: sqlite3.Connection, owner: str, thread_id: str) -> str | None:
    row = connection.execute(_GET_TO_HIDE, (thread_id, owner)).fetchone()
    if row is None:
        raise no_thread()
    agent, busy = row
    if busy:
        raise ThreadBusy("The thread has a run that has not ended")
    connection.execute(
        "UPDATE threads SET hidden = 1, updated_at = ? WHERE thread_id = ?", (now(), thread_id)
    )
    connection.execute(FORGET, (thread_id,))
    # A key that made this thread may make another one from now on.
    connection.execute("DELETE FROM idempotency WHERE thread_id = ?", (thread_id,))
    return None if agent is None else str(agent)


def list_hidden(
    connection: sqlite3.Connection, *, older_than: float = 0.0
) -> list[tuple[str, str | None]]:
    before = now() - from_seconds(older_than)
    connection.execute(_CONDEMN, (before,))
    return connection.execute(_LEFT_BEHIND, (before,)).fetchall()


def purge_slice(connection: sqlite3.Connection, thread_id: str, turns: int) -> bool:
    """Delete up to `turns` turns of a hidden thread, or else the thread itself; True: go on.

    In slices, so that the end of a long thread keeps nobody waiting.
    """
    (oldest,) = connection.execute(
        "SELECT min(turn) FROM runs JOIN threads USING (thread_id)"
        " WHERE thread_id = ? AND hidden = 1",
        (thread_id,),
    ).fetchone()
    if oldest is None:
        connection.execute("DELETE FROM threads WHERE thread_id = ? AND hidden = 1", (thread_id,))
        return False
    up_to = (thread_id, oldest + turns)
    connection.execute("DELETE FROM messages WHERE thread_id = ? AND turn < ?", up_to)
    connection.execute("DELETE FROM runs WHERE thread_id = ? AND turn < ?", up_to)
    return True


def list_threads(
    connection: sqlite3.Connection,
    owner: str,
    *,
    limit: int,
    cursor: str | None = None,
    status: ThreadStatus | None = None,
    metadata: JsonObject | None = None,
) -> Page[Thread]:
    sql, parameters = select_threads(owner, cursor=cursor, status=status, metadata=metadata)
    # What SQL compared only by type is compared here; it compares no objects and no arrays.
    nested = {k: v for k, v in (metadata or {}).items() if type(v) in (dict, list)}
    found: list[Row] = []
    for row in connection.execute(sql, parameters):
        if nested and not _has_members(from_json(row[3]), nested):
            continue
        if len(found) == limit:
            last = found[-1]
            next_cursor = encode_cursor(f"threads:{owner}", last[4], last[0])
            return Page(data=_read(found), next_cursor=next_cursor)
        found.append(row)
    return Page(data=_read(found))


def select_threads(
    owner: str,
    *,
    cursor: str | None = None,
    status: ThreadStatus | None = None,
    metadata: JsonObject | None = None,
) -> tuple[str, Sequence[Any]]:
    """The statement behind `list_threads`, without its limit. Raises InvalidRequest."""
    conditions = ["owner = ?", "hidden = 0"]
    parameters: list[Any] = [owner]
    if cursor is not None:
        conditions.append("(created_at, thread_id) < (?, ?)")
        parameters.extend(decode_cursor(f"threads:{owner}", cursor, int, str))
    if status is not None:
        conditions.append("status = ?")
        parameters.append(status)
    if metadata and len(metadata) > MAX_FILTERS:
        raise InvalidRequest(f"At most {MAX_FILTERS} members of metadata can be asked for")
    for key, value in (metadata or {}).items():
        condition, compared = _member_condition(value)
        conditions.append(condition)
        parameters.extend((key, *compared))
    return (
        f"SELECT {THREAD_COLUMNS} FROM threads WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at DESC, thread_id DESC"
    ), parameters


def _read(rows: Sequence[Row]) -> list[Thread]:
    return [read_thread(row) for row in rows]


def _member_condition(value: Any) -> tuple[str, Sequence[Any]]:
    """A condition with a marker for the key, and the values for the markers after it."""
    compared: Sequence[Any] = ()
    if isinstance(value, bool):
        types = "('true')" if value else "('false')"
    elif type(value) in _ONLY_TYPE:
        types = _ONLY_TYPE[type(value)]
    else:
        types = _COMPARABLE[type(value)]
        # Beyond 64 bits SQLite has only floats, for what it stored as well.
        compared = (float(value) if isinstance(value, int) and abs(value) >= 2**63 else value,)
    condition = f"key = ? AND type IN {types}" + (" AND value = ?" if compared else "")
    return f"EXISTS (SELECT 1 FROM json_each(metadata) WHERE {condition})", compared


def _has_members(metadata: JsonObject, wanted: JsonObject) -> bool:
    return all(key in metadata and same_json(metadata[key], wanted[key]) for key in wanted)


def same_json(one: Any, other: Any) -> bool:
    """Equality as JSON has it: 1 is 1.0 but not true, and objects have no order."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other)
