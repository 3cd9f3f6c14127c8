"""Serves a compiled graph of 10xgraph, or of 10xscale-agentflow, the same under its old name."""

import copy
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from importlib import import_module
from itertools import combinations
from typing import Any, ClassVar

from agentflow_server.adapters.interrupted import AgentInterrupted
from agentflow_server.adapters.shapes import as_json, checked_message, checked_text
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import (
    Agent,
    AgentEvent,
    CustomEvent,
    MessageCompleted,
    RunContext,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from agentflow_server.models import Content, JsonObject, Message

log = logging.getLogger(__name__)

START = "__start__"
NO_RESULT = "The tool was interrupted and has no result."


class TenxGraphAgent(Agent):
    """The graph keeps its state with the checkpointer it was compiled with.

    Claims are in the config that nodes and tools get. A claim named `authz` is nowhere in it,
    also not under `user`: 10xgraph takes what it finds there for a policy of the server's.
    """

    kind: ClassVar[str] = "tenxgraph"
    remembers = True
    reserved = frozenset(
        {"authz", "is_stream", "timestamp", "recursion_limit", "resume_data"}
        | {"thread_name", "thread_meta", "durable_checkpoint_every_step"}
    )

    def __init__(self, graph: Any, *, name: str) -> None:
        """Raises ConfigError unless the graph is compiled."""
        if type(graph).__name__ != "CompiledGraph":
            raise ConfigError(
                f"agent {name!r}: expected a compiled graph, found {type(graph).__name__}: "
                "call .compile()"
            )
        package = type(graph).__module__.partition(".")[0]
        self._types = import_module(f"{package}.core.state")
        self._granularity = import_module(f"{package}.utils").ResponseGranularity.FULL
        self._graph = graph
        # Nothing public tells with what a graph was compiled.
        self.checkpointer = graph._checkpointer  # noqa: SLF001
        self.container = graph._state_graph._container  # noqa: SLF001
        self._first_state = graph._state  # noqa: SLF001
        if type(self.checkpointer).__name__ == "InMemoryCheckpointer":
            log.warning(
                "agent %r forgets every conversation when the server stops: its graph has an "
                "InMemoryCheckpointer; pass a durable one to compile()",
                name,
            )

    async def open(self) -> None:
        await self.checkpointer.asetup()

    async def close(self) -> None:
        await self._graph.aclose()

    async def forget(self, thread_id: str) -> None:
        try:
            owner = await self.checkpointer.aget_thread_owner(thread_id)
        except NotImplementedError:
            owner = None
        config = {"thread_id": thread_id, "user_id": owner or "anonymous"}
        await self.checkpointer.aclear_state(config)
        await self.checkpointer.aclean_thread(config)
        if await self.checkpointer.aget_state_cache(config) is not None:
            # 10xscale-agentflow clears only what is not cached, and reads the cache first.
            await self.checkpointer.aput_state_cache(config, copy.deepcopy(self._first_state))

    async def stream(
        self, context: RunContext, messages: Sequence[Message]
    ) -> AsyncGenerator[AgentEvent, None]:
        config = _config(context)
        turn = _Turn()
        ended = False
        with self.container.context():
            try:
                chunks = self._graph.astream(
                    # Without `state`, a turn after a crash would go on in the middle of the graph.
                    {
                        "messages": [self._user_message(messages[-1])],
                        "state": {"current_node": START},
                    },
                    config,
                    self._granularity,
                )
                async with aclosing(chunks):
                    async for chunk in chunks:
                        for event in turn.read(chunk):
                            yield event
                ended = True
            finally:
                if not ended:
                    await self._settle(config)

    def _user_message(self, message: Message) -> Any:
        if isinstance(message.content, str):
            return self._types.Message.text_message(
                message.content, role="user", message_id=message.message_id
            )
        blocks = [self._block(part) for part in message.content]
        return self._types.Message.multimodal_message(
            blocks, role="user", message_id=message.message_id
        )

    def _block(self, part: JsonObject) -> Any:
        match part:
            case {"type": "text", "text": str(text)}:
                return self._types.TextBlock(text=text)
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                return self._types.ImageBlock(media=self._types.MediaRef(kind="url", url=url))
        raise ValueError(f"10xgraph cannot take a part of the type {part.get('type')!r}")

    async def _settle(self, config: JsonObject) -> None:
        """Let the next message start a turn, and not go on in the middle of this one."""
        try:
            state = await self.checkpointer.aget_state_cache(
                config
            ) or await self.checkpointer.aget_state(config)
            if state is None:
                return
            state.clear_interrupt()
            state.set_current_node(START)
            state.execution_meta.step = 0
            state.context = [*state.context, *self._missing_results(state.context)]
            await self.checkpointer.aput_state(config, state)
            await self.checkpointer.aput_state_cache(config, state)
        except Exception:  # the user's checkpointer; what made the turn fail matters more
            log.exception("thread %s cannot be settled after a failed turn", config["thread_id"])

    def _missing_results(self, conversation: Sequence[Any]) -> list[Any]:
        """Models refuse a conversation with an unanswered tool call."""
        answered: set[str] = set()
        for message in reversed(conversation):
            if message.role != "tool":
                calls = message.tools_calls or []
                return [
                    self._types.Message.tool_message(
                        [
                            self._types.ToolResultBlock(
                                call_id=call["id"], output=NO_RESULT, is_error=True
                            )
                        ]
                    )
                    for call in calls
                    if call["id"] not in answered
                ]
            answered.update(_call_ids(message))
        return []


class _Turn:
    """Turns what 10xgraph streams into events; knows the messages it has passed on."""

    def __init__(self) -> None:
        self._seen: set[str | int] = set()

    def read(self, chunk: Any) -> Iterator[AgentEvent]:
        data = chunk.data or {}
        match str(chunk.event), data.get("status"):
            case "message", _ if chunk.message is None:
                yield CustomEvent(as_json(data))
            case "message", _:
                yield from self._read_message(chunk.message, data.get("tool_name", ""))
            case "updates", "invoking_tool":
                yield ToolStarted(data["tool_name"], data["tool_call_id"], as_json(data["args"]))
            case "updates", "interrupted":
                raise AgentInterrupted("the graph waits at an interrupt")
            case "updates", _ if data.get("is_interrupted"):
                raise AgentInterrupted("the graph waits before or after a node")
            case "error", "tool_failed" if "error" in data:
                yield from _tool_completed(data["tool_name"], data["tool_call_id"], data["error"])
            case "error", "tool_failed":
                yield CustomEvent(as_json(data))

    def _read_message(self, message: Any, tool_name: str) -> Iterator[AgentEvent]:
        if message.delta:
            if text := message.text():
                yield TextDelta(checked_text(text))
            return
        if message.message_id in self._seen or message.role == "user":
            return  # the question is echoed
        self._seen.add(message.message_id)
        if message.role == "tool":
            call_id = next(iter(_call_ids(message)), "")
            yield from _tool_completed(tool_name, call_id, message.text())
        else:
            metadata = {"tool_calls": message.tools_calls} if message.tools_calls else {}
            yield MessageCompleted(checked_message(message.role, _content_of(message), metadata))


def find_conflicts(agents: Mapping[str, Agent]) -> list[str]:
    """Pairs of graphs that would write into each other's checkpointer."""
    graphs = [(name, agent) for name, agent in agents.items() if isinstance(agent, TenxGraphAgent)]
    return [
        f"agents {name!r} and {other!r}: their graphs share a container, so both would use the "
        "checkpointer compiled last; make each with StateGraph(container=InjectQ())"
        for (name, one), (other, two) in combinations(graphs, 2)
        if one.container is two.container and one.checkpointer is not two.checkpointer
    ]


def _tool_completed(name: str, call_id: str, result: str) -> Iterator[AgentEvent]:
    yield ToolCompleted(name, call_id, result)
    metadata = {"tool_call_id": call_id, **({"name": name} if name else {})}
    yield MessageCompleted(checked_message("tool", result, metadata))


def _call_ids(message: Any) -> list[str]:
    return [block.call_id for block in message.content if block.type == "tool_result"]


def _content_of(message: Any) -> Content:
    """Text where there is nothing else; what the model thought is not part of its answer."""
    blocks = [
        block
        for block in message.content
        if block.type not in {"reasoning", "tool_call", "remote_tool_call"}
    ]
    if all(block.type == "text" for block in blocks):
        return "".join(block.text for block in blocks)
    return [block.model_dump(mode="json", exclude_none=True) for block in blocks]


def _config(context: RunContext) -> JsonObject:
    permitted = {
        key: value
        for key, value in context.config.items()
        if key not in TenxGraphAgent.reserved and not key.startswith("_") and value is not None
    }
    user = {key: value for key, value in context.config.get("user", {}).items() if key != "authz"}
    config = {**permitted, "user": user}
    if "recursion_limit" in context.client_config:
        config["recursion_limit"] = context.client_config["recursion_limit"]
    return config
