"""How the embedded store copies a thread: in several transactions, none of them long."""

from abc import abstractmethod
from functools import partial

from agentflow_server.interfaces import Store
from agentflow_server.models import CopyPoint, Idempotency, JsonObject, Thread, ThreadCopy
from agentflow_server.stores import sqlite_copies as copies_sql
from agentflow_server.stores.copies import COPIED_AT_ONCE, merge_metadata, select_runs
from agentflow_server.stores.operations import Operation, T
from agentflow_server.stores.rows import to_text


class SqliteCopying(Store):
    """The part of the store that is about copies."""

    @abstractmethod
    async def _write(self, operation: Operation[T]) -> T: ...

    @abstractmethod
    async def _read(self, operation: Operation[T]) -> T: ...

    async def begin_copy(
        self,
        owner: str,
        thread_id: str,
        new_thread_id: str,
        *,
        metadata: JsonObject,
        idempotency: Idempotency | None = None,
    ) -> ThreadCopy:
        wanted = ThreadCopy(thread_id, new_thread_id)
        copy, found = await self._read(
            lambda connection: copies_sql.look(connection, owner, wanted)
        )
        text = to_text(merge_metadata(found, metadata))
        return await self._write(
            lambda connection: copies_sql.begin_copy(connection, owner, copy, text, idempotency)
        )

    async def finish_copy(
        self,
        owner: str,
        copy: ThreadCopy,
        *,
        point: CopyPoint | None = None,
        unchanged: bool = False,
        idempotency: Idempotency | None = None,
    ) -> Thread:
        runs = select_runs(copy, point)
        for n in range(0, len(runs), COPIED_AT_ONCE):
            await self._write(
                partial(
                    copies_sql.copy_turns,
                    copy=copy,
                    runs=runs[n : n + COPIED_AT_ONCE],
                    resumable=point is None,
                )
            )
        return await self._write(
            lambda connection: copies_sql.reveal(
                connection, owner, copy, point, unchanged=unchanged, idempotency=idempotency
            )
        )
