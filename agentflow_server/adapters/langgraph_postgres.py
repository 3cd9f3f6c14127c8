"""LangGraph's checkpoints in our PostgreSQL database, in the tables of LangGraph's own saver."""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from operator import methodcaller
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.postgres.base import BasePostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from agentflow_server.adapters import langgraph_postgres_sql as sql
from agentflow_server.adapters.databases import PostgresDatabase
from agentflow_server.adapters.langgraph_saver import (
    DatabaseSaver,
    find_lease,
    lease_lost,
    without_claims,
)
from agentflow_server.interfaces.leases import HeldLease, find_held_lease

Connection = AsyncConnection[Any]

_STORABLE_TEXT = re.compile("[^\x00\ud800-\udfff]*")


class PostgresCheckpoints(DatabaseSaver):
    """Tables and reading are those of `AsyncPostgresSaver`, on connections of the store.

    Writing is our own: one statement each, which also looks whether the run's lease still holds,
    and keeps the run until it is done. Whoever takes the run over afterwards finds all that was
    written, and nothing is written after that.
    """

    get_next_version = BasePostgresSaver.get_next_version

    def __init__(self, database: PostgresDatabase) -> None:
        super().__init__()
        self._database = database
        self._writing: defaultdict[str, set[asyncio.Task[bool]]] = defaultdict(set)

    async def _create_tables(self) -> None:
        if await self._database.read(_is_up_to_date):
            return
        async with self._database.migrating() as connection:
            await self._on(connection).setup()

    async def _read(self, config: RunnableConfig) -> CheckpointTuple | None:
        if not _STORABLE_TEXT.fullmatch(config["configurable"].get("checkpoint_id") or ""):
            return None
        return await self._database.read(lambda connection: self._on(connection).aget_tuple(config))

    async def _collect(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> list[CheckpointTuple]:
        async def read(connection: Connection) -> list[CheckpointTuple]:
            found = self._on(connection).alist(config, filter=filter, before=before, limit=limit)
            return [saved async for saved in found]

        return await self._database.read(read)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self._database.read(
            lambda connection: self._on(connection).aget_delta_channel_history(
                config=config, channels=channels
            )
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        inline, apart = _split(checkpoint["channel_values"])
        blobs = [
            (channel, version, *self.serde.dumps_typed(apart[channel]))
            for channel, version in new_versions.items()
            if channel in apart
        ]
        address = {**_address(config), "checkpoint_id": checkpoint["id"]}
        values = {
            **address,
            "parent_id": config["configurable"].get("checkpoint_id"),
            "checkpoint": Jsonb({**checkpoint, "channel_values": inline}),
            "metadata": Jsonb(
                get_serializable_checkpoint_metadata(without_claims(config), metadata)
            ),
            **_columns(("channels", "versions", "types", "blobs"), blobs),
        }
        await self._write(sql.PUT, values, find_lease(config))
        return {"configurable": address}

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        replaces = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        rows = {
            WRITES_IDX_MAP.get(channel, n): (channel, *self.serde.dumps_typed(value))
            for n, (channel, value) in enumerate(writes)
        }
        values = {
            **_address(config),
            "checkpoint_id": config["configurable"]["checkpoint_id"],
            "task_id": task_id,
            "task_path": task_path,
            "places": list(rows),
            **_columns(("channels", "types", "blobs"), list(rows.values())),
        }
        statement = sql.REPLACE_WRITES if replaces else sql.PUT_WRITES
        await self._write(statement, values, find_lease(config))

    async def adelete_thread(self, thread_id: str) -> None:
        await self._write(sql.DELETE_THREAD, {"thread_id": thread_id}, find_held_lease())

    async def forget_run(self, thread_id: str, run_id: str) -> None:
        # What was being written when the run was stopped goes on, and must not come after this.
        if writing := self._writing.get(run_id):
            await asyncio.wait(writing)
        values = {"thread_id": thread_id, "forgotten": run_id}
        await self._write(sql.DELETE_RUN, values, find_held_lease())

    async def copy_renaming(self, source: str, target: str, runs: Mapping[str, str]) -> None:
        values = {"source": source, "target": target, "runs": Jsonb(dict(runs))}
        for statement in sql.COPY_THREAD:
            await self._database.write(methodcaller("execute", statement, values))

    async def _write(
        self, statement: sql.Fenced, values: Mapping[str, Any], held: HeldLease | None
    ) -> None:
        """Raises LeaseLost."""

        async def write(connection: Connection) -> bool:
            if held is None:
                found = await connection.execute(statement.free, values)
            else:
                lease = {"run_id": held.run_id, "lease": held.lease}
                found = await connection.execute(statement.held, {**values, **lease})
            return await found.fetchone() is not None

        writing = asyncio.create_task(self._database.write(write))
        if held is not None:
            self._writing[held.run_id].add(writing)
            writing.add_done_callback(partial(self._end_writing, held.run_id))
        if not await asyncio.shield(writing):
            raise lease_lost()

    def _end_writing(self, run_id: str, writing: asyncio.Task[bool]) -> None:
        self._writing[run_id].discard(writing)
        if not self._writing[run_id]:
            del self._writing[run_id]

    def _on(self, connection: Connection) -> "_Session":
        return _Session(connection, self.serde)


class _Session(AsyncPostgresSaver):
    """`AsyncPostgresSaver` on a connection that is lent to it."""

    conn: Connection

    def __init__(self, connection: Connection, serde: SerializerProtocol) -> None:
        # Not the parent's, which makes locks: nobody else uses a connection that is lent.
        BasePostgresSaver.__init__(self, serde=serde)
        self.conn = connection
        self.pipe = None

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        async with self.conn.cursor(binary=True, row_factory=dict_row) as cursor:
            yield cursor


async def _is_up_to_date(connection: Connection) -> bool:
    """Seen without the lock, for which every start would have to wait."""
    row = await (await connection.execute(sql.FIND_TABLES)).fetchone()
    if row == (None,):
        return False
    row = await (await connection.execute(sql.FIND_VERSION)).fetchone()
    return row is not None and row[0] == len(BasePostgresSaver.MIGRATIONS) - 1


def _address(config: RunnableConfig) -> dict[str, Any]:
    configurable = config["configurable"]
    return {key: configurable[key] for key in ("thread_id", "checkpoint_ns")}


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is kept in the checkpoint's own JSON, as LangGraph does it, and what apart from it."""
    inline = {channel: value for channel, value in values.items() if _survives_jsonb(value)}
    apart = {channel: value for channel, value in values.items() if channel not in inline}
    marks = {channel: True for channel, value in apart.items() if isinstance(value, _DeltaSnapshot)}
    return {**inline, **marks}, apart


def _survives_jsonb(value: Any) -> bool:
    """Unlike a float, which may be no number or come back as an integer, an enumeration of
    texts, and a text with characters that PostgreSQL refuses."""
    if type(value) is str:
        return _STORABLE_TEXT.fullmatch(value) is not None
    return value is None or type(value) in (bool, int)


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    return {name: [row[n] for row in rows] for n, name in enumerate(names)}
