"""LangGraph's checkpoints in our own SQLite file, written in the same group commits."""

import copy
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.sqlite import SqliteSaver

from agentflow_server.adapters.databases import SqliteDatabase
from agentflow_server.adapters.langgraph_saver import (
    DatabaseSaver,
    find_lease,
    lease_lost,
    without_claims,
)
from agentflow_server.interfaces.leases import HeldLease, find_held_lease

_HELD = "SELECT 1 FROM runs WHERE run_id = ? AND lease = ?"
_RUN_ID = "json_extract(CAST(metadata AS TEXT), '$.run_id')"
_DELETE_WRITES_OF_RUN = f"""
    DELETE FROM writes WHERE thread_id = :thread AND (checkpoint_ns, checkpoint_id) IN (
        SELECT checkpoint_ns, checkpoint_id FROM checkpoints
        WHERE thread_id = :thread AND {_RUN_ID} = :run)
"""  # noqa: S608 – put together from constants of ours only
_DELETE_RUN = f"""
    DELETE FROM checkpoints WHERE thread_id = :thread AND {_RUN_ID} = :run
"""  # noqa: S608 – put together from constants of ours only
_COPY_CHECKPOINTS = f"""
    INSERT OR REPLACE INTO checkpoints (
        thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT :target, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint,
        json_replace(CAST(metadata AS TEXT), '$.run_id',
            coalesce(json_extract(:runs, '$."' || {_RUN_ID} || '"'), {_RUN_ID}))
    FROM checkpoints WHERE thread_id = :source
"""  # noqa: S608 – put together from constants of ours only
_COPY_WRITES = """
    INSERT OR REPLACE INTO writes (
        thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value)
    SELECT :target, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value
    FROM writes WHERE thread_id = :source
"""


class SqliteCheckpoints(DatabaseSaver):
    """`SqliteSaver`'s own SQL, run where the store runs its own.

    Values are serialised by the caller, so that the writer thread only writes.
    """

    get_next_version = SqliteSaver.get_next_version

    def __init__(self, database: SqliteDatabase) -> None:
        super().__init__()
        self._database = database
        self._idle_session = _Session(cast("sqlite3.Connection", None), serde=self.serde)

    async def _create_tables(self) -> None:
        await self._database.write(create_tables)

    async def _read(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._database.read(lambda at: self._session(at).get_tuple(config))

    async def _collect(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> list[CheckpointTuple]:
        def read(at: sqlite3.Connection) -> list[CheckpointTuple]:
            session = self._session(at)
            return list(session.list(config, filter=filter, before=before, limit=limit))

        return await self._database.read(read)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self._database.read(
            lambda at: self._session(at).get_delta_channel_history(config=config, channels=channels)
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        statements = _Statements(find_lease(config))
        session = self._session(statements)
        address = session.put(without_claims(config), checkpoint, metadata, new_versions)
        await self._database.write(statements.replay)
        return address

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        statements = _Statements(find_lease(config))
        self._session(statements).put_writes(config, writes, task_id, task_path)
        await self._database.write(statements.replay)

    async def adelete_thread(self, thread_id: str) -> None:
        statements = _Statements(find_held_lease())
        self._session(statements).delete_thread(thread_id)
        await self._database.write(statements.replay)

    async def forget_run(self, thread_id: str, run_id: str) -> None:
        held = find_held_lease()

        def delete(at: sqlite3.Connection) -> None:
            _require(at, held)
            for statement in (_DELETE_WRITES_OF_RUN, _DELETE_RUN):
                at.execute(statement, {"thread": thread_id, "run": run_id})

        await self._database.write(delete)

    async def copy_renaming(self, source: str, target: str, runs: Mapping[str, str]) -> None:
        values = {"source": source, "target": target, "runs": json.dumps(dict(runs))}

        def copy_rows(at: sqlite3.Connection) -> None:
            for statement in (_COPY_CHECKPOINTS, _COPY_WRITES):
                at.execute(statement, values)

        await self._database.write(copy_rows)

    def _session(self, connection: "sqlite3.Connection | _Statements") -> "_Session":
        # A copy, because making one costs as much as what it is used for.
        session = copy.copy(self._idle_session)
        session.conn = cast("sqlite3.Connection", connection)
        session.serde = self.serde
        return session


class _Session(SqliteSaver):
    """`SqliteSaver` on a connection that is lent to it: it neither commits nor creates tables."""

    @contextmanager
    def cursor(self, transaction: bool = True) -> Iterator[sqlite3.Cursor]:
        cursor = self.conn.cursor()
        try:
            yield cursor
        finally:
            cursor.close()


class _Statements:
    """Stands in for a connection: remembers what would be executed."""

    def __init__(self, held: HeldLease | None) -> None:
        self._held = held
        self._recorded: list[tuple[str, list[Sequence[Any]]]] = []

    def cursor(self) -> "_Statements":
        return self

    def close(self) -> None:
        pass

    def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        self._recorded.append((sql, [values]))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._recorded.append((sql, list(rows)))

    def replay(self, at: sqlite3.Connection) -> None:
        """Raises LeaseLost."""
        _require(at, self._held)
        for sql, rows in self._recorded:
            at.executemany(sql, rows)


class _Lent:
    """Stands in for a connection in `setup`: `executescript` would commit what others wrote."""

    def __init__(self, at: sqlite3.Connection) -> None:
        self.execute = at.execute

    def executescript(self, script: str) -> None:
        for statement in script.split(";"):
            if statement.strip() and not statement.strip().startswith("PRAGMA"):
                self.execute(statement)


def create_tables(at: sqlite3.Connection) -> None:
    SqliteSaver(cast("sqlite3.Connection", _Lent(at))).setup()


def _require(at: sqlite3.Connection, held: HeldLease | None) -> None:
    """No other process has the file; but an agent that would not stop may be at work still."""
    if held and at.execute(_HELD, (held.run_id, held.lease)).fetchone() is None:
        raise lease_lost()
