"""LangGraph's checkpoints in our own SQLite file, written in the same group commits."""

import asyncio
import copy
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

T = TypeVar("T")

_ADDRESS = ("thread_id", "checkpoint_ns", "checkpoint_id", "run_id")
"""What a checkpoint keeps of `configurable`: LangGraph would store every claim beside it."""

_DELETE_RUN = """
    DELETE FROM checkpoints
    WHERE thread_id = :thread AND json_extract(CAST(metadata AS TEXT), '$.run_id') = :run
"""
_DELETE_WRITES_OF_RUN = """
    DELETE FROM writes WHERE thread_id = :thread AND (checkpoint_ns, checkpoint_id) IN (
        SELECT checkpoint_ns, checkpoint_id FROM checkpoints
        WHERE thread_id = :thread AND json_extract(CAST(metadata AS TEXT), '$.run_id') = :run)
"""
_RUN_ID = "json_extract(CAST(metadata AS TEXT), '$.run_id')"
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

_at_hand: ContextVar[tuple[str, CheckpointTuple | None] | None] = ContextVar(
    "_at_hand", default=None
)


class Database(Protocol):
    """What the saver needs of the store."""

    async def write(self, operation: Callable[[sqlite3.Connection], T], /) -> T:
        """Run it in the writer thread, inside its transaction; durable when this returns."""

    async def read(self, operation: Callable[[sqlite3.Connection], T], /) -> T:
        """Run it in a reader thread."""


class GroupCommitSaver(SqliteSaver):
    """`SqliteSaver`'s own SQL, run where the store runs its own.

    Values are serialised by the caller, so that the writer thread only writes. Nothing is pickled,
    and nothing is restored but LangGraph's own types and those that `with_allowlist` names.
    """

    def __init__(self, database: Database) -> None:
        serde = JsonPlusSerializer(allowed_msgpack_modules=None)
        super().__init__(cast("sqlite3.Connection", None), serde=serde)
        self._database = database
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle_session = _Session(cast("sqlite3.Connection", None), serde=serde)

    async def open(self) -> None:
        """Create the tables. May be called again."""
        self._loop = asyncio.get_running_loop()
        await self._database.write(_create_tables)

    async def look_ahead(self, thread_id: str) -> CheckpointTuple | None:
        """The thread's last checkpoint. A graph that the same task runs next on the thread gets
        this one: reading costs time for every message there is, so it is done once."""
        _at_hand.set(None)
        saved = await self.aget_tuple({"configurable": {"thread_id": thread_id}})
        _at_hand.set((thread_id, saved))
        return saved

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        at_hand = _at_hand.get()
        _at_hand.set(None)
        if at_hand is not None and _wants_latest(config, at_hand[0]):
            return at_hand[1]
        return await self._database.read(lambda at: self._session(at).get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        def read(at: sqlite3.Connection) -> list[CheckpointTuple]:
            session = self._session(at)
            return list(session.list(config, filter=filter, before=before, limit=limit))

        for saved in await self._database.read(read):
            yield saved

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
        statements = _Statements()
        session = self._session(statements)
        address = session.put(_without_claims(config), checkpoint, metadata, new_versions)
        await self._database.write(statements.replay)
        return address

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        statements = _Statements()
        self._session(statements).put_writes(config, writes, task_id, task_path)
        await self._database.write(statements.replay)

    async def adelete_thread(self, thread_id: str) -> None:
        await self._database.write(lambda at: self._session(at).delete_thread(thread_id))

    async def forget_run(self, thread_id: str, run_id: str) -> None:
        """Delete what one run has saved."""

        def delete(at: sqlite3.Connection) -> None:
            for statement in (_DELETE_WRITES_OF_RUN, _DELETE_RUN):
                at.execute(statement, {"thread": thread_id, "run": run_id})

        await self._database.write(delete)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self.copy_renaming(source_thread_id, target_thread_id, {})

    async def copy_renaming(self, source: str, target: str, runs: Mapping[str, str]) -> None:
        """`runs` says how the runs of the source are called in the target."""

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

    # LangGraph calls these when a synchronous node runs a graph of its own.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        async def collect() -> Sequence[CheckpointTuple]:
            found = self.alist(config, filter=filter, before=before, limit=limit)
            return [saved async for saved in found]

        yield from self._wait(collect())

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._wait(self.aget_delta_channel_history(config=config, channels=channels))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._wait(self.adelete_thread(thread_id))

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if self._loop is None or running is self._loop:
            coroutine.close()
            raise RuntimeError(
                "a graph was called synchronously on the event loop: use its async methods "
                "(ainvoke, astream, aget_state) in async code"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


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

    def __init__(self) -> None:
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


def _create_tables(at: sqlite3.Connection) -> None:
    SqliteSaver(cast("sqlite3.Connection", _Lent(at))).setup()


def _wants_latest(config: RunnableConfig, thread_id: str) -> bool:
    wanted = config["configurable"]
    return (
        wanted.get("thread_id") == thread_id
        and not wanted.get("checkpoint_ns")
        and not wanted.get("checkpoint_id")
    )


def _without_claims(config: RunnableConfig) -> RunnableConfig:
    configurable = config["configurable"]
    return {
        "configurable": {key: configurable[key] for key in _ADDRESS if key in configurable},
        "metadata": config.get("metadata", {}),
    }
