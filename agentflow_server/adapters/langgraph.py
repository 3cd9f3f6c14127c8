"""Serves a compiled LangGraph graph, token by token, with its state in our database."""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, Literal, cast

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import is_invalid_resume
from langgraph.graph.state import CompiledStateGraph, StateGraph

from agentflow_server.adapters.databases import Database
from agentflow_server.adapters.langgraph_memory import choose_saver, choose_store
from agentflow_server.adapters.langgraph_resuming import Beginning, find_questions, plan_resuming
from agentflow_server.adapters.langgraph_saver import LEASE_KEY, DatabaseSaver
from agentflow_server.adapters.langgraph_states import (
    Graph,
    ThreadStates,
    address,
    has_breakpoints,
    has_delta_channels,
)
from agentflow_server.adapters.langgraph_turn import Turn
from agentflow_server.adapters.shapes import to_openai
from agentflow_server.errors import ConfigError, NotFound
from agentflow_server.interfaces import Agent, AgentAsked, AgentEvent, HasState, RunContext
from agentflow_server.interfaces.leases import find_held_lease
from agentflow_server.models import CopyPoint, Interrupt, JsonObject, Message

Durability = Literal["sync", "exit"]

log = logging.getLogger(__name__)

_COORDINATES = frozenset(
    {"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map", "task_id"}
    | {"checkpointer", "store", "durability", "assistant_id", "graph_id"}
)
_AUTH_KEYS = frozenset(
    {"langgraph_auth_user", "langgraph_auth_user_id", "langgraph_auth_permissions"}
)

NO_RESULT = "The tool was interrupted and has no result."


class LangGraphAgent(Agent, HasState):
    """Claims are in `config["configurable"]`, the caller also in `langgraph_auth_user`.

    A graph compiled without a checkpointer gets one of ours. What enters the state's `messages`
    during the run is the answer; what its models write is streamed while they write it. A run that
    goes on after a crash tells once more what it has said since it began, or was last resumed.
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
        self._saver = choose_saver(graph, name, database, checkpointer)
        chosen = {"checkpointer": self._saver or False, "store": choose_store(graph, name, store)}
        self._graph: Graph = graph.copy(update=chosen)
        self._states = None if self._saver is None else ThreadStates(self._graph, self._saver)
        self.remembers = self._saver is not None
        in_memory = isinstance(self._saver, InMemorySaver)
        self.resumable = self.remembers and not in_memory and durability == "sync"
        if in_memory:
            log.warning(
                "agent %r forgets every conversation when the server stops: its graph has an "
                "InMemorySaver; compile it without a checkpointer to get a durable one",
                name,
            )
        # LangGraph warns when durability is asked for and there is nothing to be durable.
        self._options: dict[str, Any] = {"durability": durability} if self._saver else {}
        self._options["output_keys"] = ["messages"]
        self._options["stream_mode"] = ["values", "messages", "custom"]
        if has_breakpoints(graph):
            # Only here does LangGraph tell that it stopped at such a node.
            self._options["stream_mode"].append("updates")

    async def open(self) -> None:
        """Raises ConfigError when the graph's own checkpointer cannot be used here."""
        if isinstance(self._saver, DatabaseSaver):
            await self._saver.open()
        elif self._saver is not None:
            try:
                await self._saver.aget_tuple(address("00000000-0000-0000-0000-000000000000"))
            except NotImplementedError as exc:
                raise ConfigError(
                    f"agent {self._name!r}: {type(self._saver).__name__} has no async methods; "
                    "compile the graph without a checkpointer, or with an async one"
                ) from exc

    async def forget(self, thread_id: str) -> None:
        if self._saver is not None:
            await self._saver.adelete_thread(thread_id)

    async def undo(self, thread_id: str, run_id: str) -> None:
        if isinstance(self._saver, DatabaseSaver) and not has_delta_channels(self._graph):
            await self._saver.forget_run(thread_id, run_id)
        elif self._states is not None:
            await self._states.step_back(thread_id, run_id)

    async def get_state(self, thread_id: str) -> JsonObject:
        return await self._kept_states().get(thread_id)

    async def list_history(
        self, thread_id: str, *, limit: int, before: str | None = None
    ) -> list[JsonObject]:
        return await self._kept_states().list_history(thread_id, limit=limit, before=before)

    async def fork(self, thread_id: str, checkpoint_id: str) -> CopyPoint | None:
        return await self._kept_states().fork(thread_id, checkpoint_id)

    async def copy(
        self, thread_id: str, new_thread_id: str, runs: Mapping[str, str] | None = None
    ) -> None:
        states = self._kept_states()
        if isinstance(self._saver, DatabaseSaver):
            await self._saver.copy_renaming(thread_id, new_thread_id, runs or {})
        else:
            await states.copy(thread_id, new_thread_id, runs or {})

    def _kept_states(self) -> ThreadStates:
        if self._states is None:
            raise NotFound("This agent keeps no state")
        return self._states

    async def stream(
        self, context: RunContext, messages: Sequence[Message]
    ) -> AsyncGenerator[AgentEvent, None]:
        beginning = await self._begin(context, messages)
        if beginning.asked:
            yield AgentAsked(beginning.asked)
            return
        turn = Turn(beginning.told)
        running = self._graph.astream(beginning.input, _config(context), **self._options)
        try:
            async with aclosing(cast("Any", running)) as chunks:
                async for mode, chunk in chunks:
                    for event in turn.read(mode, chunk):
                        yield event
        except Exception as exc:  # whatever the user's graph raises
            if not is_invalid_resume(exc):
                raise
            log.warning("run %s: the answer does not fit, and is asked for again", context.run_id)
            turn.stopped = True
        if turn.stopped:
            yield AgentAsked(await self._questions(context.thread_id))

    async def _begin(self, context: RunContext, messages: Sequence[Message]) -> Beginning:
        if self._states is not None and (context.answers or context.attempt > 1):
            snapshot = await self._graph.aget_state(address(context.thread_id))
            if (snapshot.metadata or {}).get("run_id") == context.run_id:
                return await plan_resuming(self._graph, context, snapshot, messages)
        if context.answers:
            raise RuntimeError("the graph no longer waits where it asked")
        given = [{**to_openai(message), "id": message.message_id} for message in messages]
        return Beginning({"messages": [*await self._missing_results(context.thread_id), *given]})

    async def _questions(self, thread_id: str) -> Sequence[Interrupt]:
        if self._states is None:
            raise RuntimeError("the graph asked somebody, and has no checkpointer to wait with")
        return find_questions(await self._graph.aget_state(address(thread_id)))

    async def _missing_results(self, thread_id: str) -> list[ToolMessage]:
        """Models refuse a conversation with an unanswered tool call: a crash leaves one."""
        if self._saver is None:
            return []
        if isinstance(self._saver, DatabaseSaver):
            return _answer_tool_calls(await self._saver.look_ahead(thread_id))
        return _answer_tool_calls(await self._saver.aget_tuple(address(thread_id)))


class AuthenticatedUser(dict[str, Any]):
    """The claims, and what LangGraph expects of a user: `runtime.server_info.user.identity`."""

    def __init__(self, context: RunContext) -> None:
        self.identity = context.principal.id
        self.display_name = context.principal.id
        self.is_authenticated = not context.principal.is_anonymous
        self.permissions = sorted(context.principal.scopes)
        super().__init__(context.principal.claims, identity=self.identity)


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
            LEASE_KEY: find_held_lease(),
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
