"""What LangGraph keeps of a thread: shown, forked, copied, and taken back."""

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointMetadata, CheckpointTuple
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agentflow_server.adapters.shapes import as_json
from agentflow_server.errors import NotFound
from agentflow_server.models import CopyPoint, JsonObject

Graph = CompiledStateGraph[Any, Any, Any, Any]

_SHOWN = ("source", "step", "run_id")
"""A saver of the user's stores every claim in the metadata, too."""


class ThreadStates:
    """The states of a graph's threads, with whatever saver it has."""

    def __init__(self, graph: Graph, saver: BaseCheckpointSaver[Any]) -> None:
        self._graph = graph
        self._saver = saver

    async def get(self, thread_id: str) -> JsonObject:
        return _show(await self._graph.aget_state(address(thread_id)))

    async def list_history(
        self, thread_id: str, *, limit: int, before: str | None
    ) -> list[JsonObject]:
        older = None if before is None else address(thread_id, before)
        found = self._graph.aget_state_history(address(thread_id), before=older, limit=limit)
        return [_show(snapshot) async for snapshot in found]

    async def fork(self, thread_id: str, checkpoint_id: str) -> CopyPoint | None:
        """Raises NotFound."""
        wanted = address(thread_id, checkpoint_id)
        saved = await self._saver.aget_tuple(wanted)
        if saved is None or saved.checkpoint["id"] != checkpoint_id:
            raise NotFound("There is no such checkpoint")
        point = await self._find_point(thread_id, saved)
        forked = await self._graph.aupdate_state(wanted, None, as_node="__copy__")
        if point is not None:
            await self._adopt(forked, point.run_id)
        return point

    async def _find_point(self, thread_id: str, saved: CheckpointTuple) -> CopyPoint | None:
        run_id: str | None = saved.metadata.get("run_id")
        if run_id is None:
            return None
        if saved.metadata.get("source") == "input":  # which is not in the messages yet
            return CopyPoint(run_id, "nothing")
        mine = self._saver.alist(address(thread_id), filter={"run_id": run_id}, limit=1)
        async for newest in mine:
            versions = newest.checkpoint["channel_versions"]
            if versions != saved.checkpoint["channel_versions"]:
                return CopyPoint(run_id, "question")
        return CopyPoint(run_id, "everything")

    async def _adopt(self, forked: RunnableConfig, run_id: str) -> None:
        """LangGraph's copy of a checkpoint does not say whose it is."""
        saved = await self._saver.aget_tuple(forked)
        assert saved is not None  # noqa: S101 – it has just been put
        metadata: CheckpointMetadata = {**saved.metadata, "run_id": run_id}
        config = saved.parent_config or _without_checkpoint(saved.config)
        await self._saver.aput(config, saved.checkpoint, metadata, {})

    async def copy(self, thread_id: str, new_thread_id: str, runs: Mapping[str, str]) -> None:
        everything: RunnableConfig = {"configurable": {"thread_id": thread_id}}
        async for saved in self._saver.alist(everything):
            run_id = saved.metadata.get("run_id")
            if run_id is not None and run_id in runs:
                metadata: CheckpointMetadata = {**saved.metadata, "run_id": runs[run_id]}
                saved = saved._replace(metadata=metadata)  # noqa: PLW2901
            await self._put(saved, new_thread_id)

    async def step_back(self, thread_id: str, run_id: str) -> None:
        """Make what there was before the run the newest state again. What it has saved stays
        behind it: savers cannot delete a run."""
        newest = await self._saver.aget_tuple(address(thread_id))
        if newest is None or newest.metadata.get("run_id") != run_id:
            return
        first = newest
        async for saved in self._saver.alist(address(thread_id), filter={"run_id": run_id}):
            first = saved
        if first.parent_config is None:
            await self._saver.adelete_thread(thread_id)
        else:
            await self._graph.aupdate_state(first.parent_config, None, as_node="__copy__")

    async def _put(self, saved: CheckpointTuple, thread_id: str) -> None:
        namespace = saved.config["configurable"].get("checkpoint_ns", "")
        parent = (saved.parent_config or {}).get("configurable", {}).get("checkpoint_id")
        put = await self._saver.aput(
            address(thread_id, parent, namespace),
            saved.checkpoint,
            saved.metadata,
            saved.checkpoint["channel_versions"],
        )
        writes: dict[str, list[tuple[str, Any]]] = {}
        for task_id, channel, value in saved.pending_writes or []:
            writes.setdefault(task_id, []).append((channel, value))
        for task_id, values in writes.items():
            await self._saver.aput_writes(put, values, task_id)


def address(
    thread_id: str, checkpoint_id: str | None = None, namespace: str = ""
) -> RunnableConfig:
    where = {"thread_id": thread_id, "checkpoint_ns": namespace}
    if checkpoint_id is not None:
        where["checkpoint_id"] = checkpoint_id
    return {"configurable": where}


def _without_checkpoint(config: RunnableConfig) -> RunnableConfig:
    where = config["configurable"]
    return address(where["thread_id"], namespace=where.get("checkpoint_ns", ""))


def has_delta_channels(graph: Graph) -> bool:
    """Such a channel leaves what a run was given beside the checkpoint before the run."""
    return any(isinstance(channel, DeltaChannel) for channel in graph.channels.values())


def has_breakpoints(graph: Graph) -> bool:
    graphs = [graph, *(nested for _, nested in graph.get_subgraphs(recurse=True))]
    return any(
        isinstance(each, Pregel) and (each.interrupt_before_nodes or each.interrupt_after_nodes)
        for each in graphs
    )


def _show(snapshot: StateSnapshot) -> JsonObject:
    metadata: Mapping[str, Any] = snapshot.metadata or {}
    return {
        "values": as_json(snapshot.values, bytes_mode="base64"),
        "next": list(snapshot.next),
        "interrupts": [
            {"interrupt_id": asked.id, "value": as_json(asked.value)}
            for asked in snapshot.interrupts
        ],
        "checkpoint_id": _checkpoint_id(snapshot.config),
        "parent_checkpoint_id": _checkpoint_id(snapshot.parent_config),
        "created_at": snapshot.created_at,
        "metadata": {key: metadata[key] for key in _SHOWN if key in metadata},
    }


def _checkpoint_id(config: RunnableConfig | None) -> str | None:
    return None if config is None else config["configurable"].get("checkpoint_id")
