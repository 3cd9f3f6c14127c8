"""LangGraph's checkpoints in the server's own database, whichever it is."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentflow_server.errors import LeaseLost
from agentflow_server.interfaces.leases import HeldLease, find_held_lease

T = TypeVar("T")

LEASE_KEY = "__agentflow_lease"
"""Of `configurable`: LangGraph passes it on to subgraphs, also in threads that have lost their
context variables. What begins with two underscores is neither stored nor traced."""

_ADDRESS = ("thread_id", "checkpoint_ns", "checkpoint_id", "run_id")
"""What a checkpoint keeps of `configurable`: LangGraph would store every claim beside it."""

_at_hand: ContextVar[tuple[str, CheckpointTuple | None] | None] = ContextVar(
    "_at_hand", default=None
)


class DatabaseSaver(BaseCheckpointSaver[str]):
    """What a run writes is refused once its lease is lost: every writing method raises LeaseLost.

    Nothing is pickled, and nothing is restored but LangGraph's own types and those that
    `with_allowlist` names.
    """

    def __init__(self) -> None:
        super().__init__(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Create the tables. May be called again."""
        self._loop = asyncio.get_running_loop()
        await self._create_tables()

    @abstractmethod
    async def _create_tables(self) -> None: ...

    @abstractmethod
    async def _read(self, config: RunnableConfig) -> CheckpointTuple | None: ...

    @abstractmethod
    async def _collect(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> list[CheckpointTuple]: ...

    @abstractmethod
    async def forget_run(self, thread_id: str, run_id: str) -> None:
        """Delete what one run has saved."""

    @abstractmethod
    async def copy_renaming(self, source: str, target: str, runs: Mapping[str, str]) -> None:
        """`runs` says how the runs of the source are called in the target."""

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
        return await self._read(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for saved in await self._collect(config, filter, before, limit):
            yield saved

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self.copy_renaming(source_thread_id, target_thread_id, {})

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
        yield from self._wait(self._collect(config, filter, before, limit))

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


def find_lease(config: RunnableConfig) -> HeldLease | None:
    """Under which a graph with this config writes; None: it belongs to no run."""
    given: HeldLease | None = config["configurable"].get(LEASE_KEY)
    return given or find_held_lease()


def lease_lost() -> LeaseLost:
    return LeaseLost("The run has ended, or another worker owns it now: its graph is stopped")


def without_claims(config: RunnableConfig) -> RunnableConfig:
    configurable = config["configurable"]
    return {
        "configurable": {key: configurable[key] for key in _ADDRESS if key in configurable},
        "metadata": config.get("metadata", {}),
    }


def _wants_latest(config: RunnableConfig, thread_id: str) -> bool:
    wanted = config["configurable"]
    return (
        wanted.get("thread_id") == thread_id
        and not wanted.get("checkpoint_ns")
        and not wanted.get("checkpoint_id")
    )
