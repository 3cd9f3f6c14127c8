"""What a store does in several transactions, so that none of them is long."""

from abc import abstractmethod
from collections.abc import Sequence

from agentflow_server.interfaces import Store
from agentflow_server.models import CopyPoint, Idempotency, JsonObject, Thread, ThreadCopy
from agentflow_server.stores.copies import merge_metadata, select_runs

_TURNS = 100
"""In one slice."""


class SlicingStore(Store):
    """A store that says how each of the steps is done."""

    @abstractmethod
    async def _purge_slice(self, thread_id: str, turns: int) -> bool: ...

    @abstractmethod
    async def _look_at_source(
        self, owner: str, copy: ThreadCopy
    ) -> tuple[ThreadCopy, JsonObject]: ...

    @abstractmethod
    async def _hide_copy(
        self,
        owner: str,
        copy: ThreadCopy,
        metadata: JsonObject,
        idempotency: Idempotency | None,
    ) -> ThreadCopy: ...

    @abstractmethod
    async def _copy_turns(
        self, copy: ThreadCopy, runs: Sequence[tuple[str, str]], *, resumable: bool
    ) -> None: ...

    @abstractmethod
    async def _reveal_copy(
        self,
        owner: str,
        copy: ThreadCopy,
        point: CopyPoint | None,
        *,
        unchanged: bool,
        idempotency: Idempotency | None,
    ) -> Thread: ...

    async def purge_thread(self, thread_id: str) -> None:
        while await self._purge_slice(thread_id, _TURNS):
            pass

    async def begin_copy(
        self,
        owner: str,
        thread_id: str,
        new_thread_id: str,
        *,
        metadata: JsonObject,
        idempotency: Idempotency | None = None,
    ) -> ThreadCopy:
        copy, found = await self._look_at_source(owner, ThreadCopy(thread_id, new_thread_id))
        merged = merge_metadata(found, metadata)
        return await self._hide_copy(owner, copy, merged, idempotency)

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
        for n in range(0, len(runs), _TURNS):
            await self._copy_turns(copy, runs[n : n + _TURNS], resumable=point is None)
        return await self._reveal_copy(
            owner, copy, point, unchanged=unchanged, idempotency=idempotency
        )
