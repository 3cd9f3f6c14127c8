"""Serves a compiled LangGraph graph, token by token, with its state in our database."""

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, Literal, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.utils import convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph._internal._serde import build_serde_allowlist
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph, StateGraph
from langgraph.store.base import BaseStore

from agentflow_server.adapters.interrupted import AgentInterrupted
from agentflow_server.adapters.langgraph_saver import Database, GroupCommitSaver
from agentflow_server.adapters.shapes import (
    as_json,
    checked_message,
    checked_text,
    to_openai,
    tool_call,
)
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

Durability = Literal["sync", "exit"]
Graph = CompiledStateGraph[Any, Any, Any, Any]

log = logging.getLogger(__name__)

_COORDINATES = frozenset(
    {"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map", "task_id"}
    | {"checkpointer", "store", "durability", "assistant_id", "graph_id"}
)
_AUTH_KEYS = frozenset(
    {"langgraph_auth_user", "langgraph_auth_user_id", "langgraph_auth_permissions"}
)

NO_RESULT = "The tool was interrupted and has no result."


class LangGraphAgent(Agent):
    """Claims are in `config["configurable"]`, the caller also in `langgraph_auth_user`.

    A graph compiled without a checkpointer gets one of ours. What enters the state's `messages`
    during the run is the answer; what its models write is streamed while they write it.
    """

    kind: ClassVar[str] = "langgraph"
    reserved = frozenset(RunnableConfig.__annotations__) | _COORDINATES | _AUTH_KEYS

    def __init__(
        self,
        graph: Graph,
        *,
        name: str,
        database: Database,
        checkpointer: object = None,
        store: object = None,
        durability: Durability = "sync",
    ) -> None:
        """Raises ConfigError for a graph that takes no messages, and for what contradicts it."""
        _check_messages(graph, name)
        self._name = name
        self._saver = _choose_saver(graph, name, database, checkpointer)
        chosen = {"checkpointer": self._saver or False, "store": _choose_store(graph, name, store)}
        self._graph: Graph = graph.copy(update=chosen)
        self.remembers = self._saver is not None
        if isinstance(self._saver, InMemorySaver):
            log.warning(
                "agent %r forgets every conversation when the server stops: its graph has an "
                "InMemorySaver; compile it without a checkpointer to get a durable one",
                name,
            )
        # LangGraph warns when durability is asked for and there is nothing to be durable.
        self._options: dict[str, Any] = {"durability": durability} if self._saver else {}
        self._options["output_keys"] = ["messages"]
        self._options["stream_mode"] = ["values", "messages", "custom"]
        if graph.interrupt_before_nodes or graph.interrupt_after_nodes:
            # Only here does LangGraph tell that it stopped at such a node.
            self._options["stream_mode"].append("updates")

    async def open(self) -> None:
        """Raises ConfigError when the graph's own checkpointer cannot be used here."""
        if isinstance(self._saver, GroupCommitSaver):
            await self._saver.open()
        elif self._saver is not None:
            try:
                await self._saver.aget_tuple(_address("00000000-0000-0000-0000-000000000000"))
            except NotImplementedError as exc:
                raise ConfigError(
                    f"agent {self._name!r}: {type(self._saver).__name__} has no async methods; "
                    "compile the graph without a checkpointer, or with an async one"
                ) from exc

    async def forget(self, thread_id: str) -> None:
        if self._saver is not None:
            await self._saver.adelete_thread(thread_id)

    async def stream(
        self, context: RunContext, messages: Sequence[Message]
    ) -> AsyncGenerator[AgentEvent, None]:
        given = [{**to_openai(message), "id": message.message_id} for message in messages]
        state = {"messages": [*await self._missing_results(context.thread_id), *given]}
        turn = _Turn()
        running = self._graph.astream(state, _config(context), **self._options)
        async with aclosing(cast("Any", running)) as chunks:
            async for mode, chunk in chunks:
                for event in turn.read(mode, chunk):
                    yield event

    async def _missing_results(self, thread_id: str) -> list[ToolMessage]:
        """Models refuse a conversation with an unanswered tool call: a crash leaves one."""
        if self._saver is None:
            return []
        if isinstance(self._saver, GroupCommitSaver):
            return _answer_tool_calls(await self._saver.look_ahead(thread_id))
        return _answer_tool_calls(await self._saver.aget_tuple(_address(thread_id)))


class AuthenticatedUser(dict[str, Any]):
    """The claims, and what LangGraph expects of a user: `runtime.server_info.user.identity`."""

    def __init__(self, context: RunContext) -> None:
        self.identity = context.principal.id
        self.display_name = context.principal.id
        self.is_authenticated = not context.principal.is_anonymous
        self.permissions = sorted(context.principal.scopes)
        super().__init__(context.principal.claims, identity=self.identity)


class _Turn:
    """Turns what LangGraph streams into events; knows the messages it has seen."""

    def __init__(self) -> None:
        self._seen: set[str | int] | None = None
        self._writer: tuple[int, str] = (-1, "")

    def read(self, mode: str, chunk: Any) -> Iterator[AgentEvent]:
        match mode:
            case "messages":
                yield from self._read_delta(*chunk)
            case "custom":
                yield CustomEvent(as_json(chunk))
            case "values":
                yield from self._read_state(chunk["messages"])
        if mode in {"values", "updates"} and "__interrupt__" in chunk:
            raise AgentInterrupted("the graph waits at an interrupt")

    def _read_delta(
        self, message: BaseMessage, metadata: Mapping[str, Any]
    ) -> Iterator[AgentEvent]:
        """Of nodes that write at the same time the first is heard: deltas make one message."""
        if not isinstance(message, AIMessageChunk) or not message.text:
            return
        writer = (metadata["langgraph_step"], metadata["langgraph_checkpoint_ns"])
        if writer[0] != self._writer[0]:
            self._writer = writer
        if writer == self._writer:
            yield TextDelta(checked_text(message.text))

    def _read_state(self, messages: Sequence[Any]) -> Iterator[AgentEvent]:
        """The first state is the one the run starts with."""
        if self._seen is None:
            self._seen = {_identity(message) for message in messages}
        for message in messages:
            if _identity(message) not in self._seen:
                self._seen.add(_identity(message))
                yield from _read_message(*convert_to_messages([message]))


def _read_message(message: BaseMessage) -> Iterator[AgentEvent]:
    match message:
        case AIMessage():
            calls = [
                tool_call(call["name"], call["id"] or "", call["args"])
                for call in message.tool_calls
            ]
            metadata = {"tool_calls": calls} if calls else {}
            yield MessageCompleted(
                checked_message("assistant", _content_of(message), _with_name(message, metadata))
            )
            for call in message.tool_calls:
                yield ToolStarted(call["name"], call["id"] or "", as_json(call["args"]))
        case ToolMessage():
            content = _content_of(message)
            yield ToolCompleted(message.name or "", message.tool_call_id, content)
            metadata = _with_name(message, {"tool_call_id": message.tool_call_id})
            yield MessageCompleted(checked_message("tool", content, metadata))


def _content_of(message: BaseMessage) -> Content:
    if isinstance(message.content, str):
        return message.content
    return [
        {"type": "text", "text": part} if isinstance(part, str) else as_json(part)
        for part in message.content
    ]


def _with_name(message: BaseMessage, metadata: JsonObject) -> JsonObject:
    return {**metadata, "name": message.name} if message.name else metadata


def _identity(message: Any) -> str | int:
    """Messages have ids, unless the state's reducer is not LangGraph's `add_messages`."""
    given = message.get("id") if isinstance(message, dict) else message.id
    return given or id(message)


def _answer_tool_calls(saved: CheckpointTuple | None) -> list[ToolMessage]:
    messages = saved.checkpoint["channel_values"].get("messages") if saved else None
    answered = set()
    for message in reversed(messages if isinstance(messages, list) else []):
        if not isinstance(message, ToolMessage):
            calls = message.tool_calls if isinstance(message, AIMessage) else []
            return [
                ToolMessage(NO_RESULT, tool_call_id=call["id"], name=call["name"], status="error")
                for call in calls
                if call["id"] not in answered
            ]
        answered.add(message.tool_call_id)
    return []


def _config(context: RunContext) -> RunnableConfig:
    permitted = {
        key: value
        for key, value in context.config.items()
        if key not in LangGraphAgent.reserved and not key.startswith(("_", "langgraph_"))
    }
    user = AuthenticatedUser(context)
    config: RunnableConfig = {
        "configurable": {
            **permitted,
            "thread_id": context.thread_id,
            "run_id": context.run_id,
            "langgraph_auth_user": user,
            "langgraph_auth_user_id": user.identity,
            "langgraph_auth_permissions": user.permissions,
        }
    }
    if "recursion_limit" in context.client_config:
        config["recursion_limit"] = context.client_config["recursion_limit"]
    if "tags" in context.client_config:
        config["tags"] = context.client_config["tags"]
    return config


def _address(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def _check_messages(graph: object, name: str) -> None:
    expected = 'expected a compiled StateGraph whose state and input have a key "messages"'
    if not isinstance(graph, CompiledStateGraph):
        advice = ": call .compile()" if isinstance(graph, StateGraph) else ""
        raise ConfigError(f"agent {name!r}: {expected}, found {type(graph).__name__}{advice}")
    schemas = graph.builder.schemas
    for schema in (graph.builder.state_schema, graph.builder.input_schema):
        if "messages" not in schemas[schema]:
            keys = ", ".join(sorted(schemas[schema])) or "no keys"
            raise ConfigError(f"agent {name!r}: {expected}, found {schema.__name__} with {keys}")


def _choose_saver(
    graph: Graph, name: str, database: Database, configured: object
) -> BaseCheckpointSaver[Any] | None:
    own = graph.checkpointer
    if configured is not None and not isinstance(configured, BaseCheckpointSaver):
        raise ConfigError(
            f"checkpointer: expected a LangGraph checkpointer, found {type(configured).__name__}"
        )
    if configured is not None and own is not None:
        raise ConfigError(
            f'agent {name!r}: the graph is compiled with checkpointer={own!r} and the config has "checkpointer" too: '
            "remove one of the two"
        )
    if own is False:
        return None
    if isinstance(own, BaseCheckpointSaver):
        return own
    return configured or GroupCommitSaver(database).with_allowlist(_declared_types(graph))


def _choose_store(graph: Graph, name: str, configured: object) -> BaseStore | None:
    if configured is not None and not isinstance(configured, BaseStore):
        raise ConfigError(f"store: expected a LangGraph store, found {type(configured).__name__}")
    if configured is not None and graph.store is not None:
        raise ConfigError(
            f'agent {name!r}: the graph is compiled with a store and the config has "store" too: '
            "remove one of the two"
        )
    return configured or graph.store


def _declared_types(graph: Graph) -> set[tuple[str, ...]]:
    """The types that the graph's state may hold, by LangGraph's own reckoning."""
    return build_serde_allowlist(schemas=list(graph.builder.schemas), channels=graph.channels)
