"""Serves a compiled graph of 10xgraph, or of 10xscale-agentflow, the same under its old name."""

import copy
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from importlib import import_module
from itertools import combinations
from typing import Any, ClassVar

from agentflow_server.adapters.approving import bind_answer
from agentflow_server.adapters.shapes import as_json
from agentflow_server.adapters.tenxgraph_turn import Turn, call_ids
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import Agent, AgentAsked, AgentEvent, RunContext
from agentflow_server.models import Interrupt, JsonObject, Message

log = logging.getLogger(__name__)

START = "__start__"
_RUN = "agentflow_run_id"
"""Where the message of a run says whose it is."""

_REMOTE_TOOL = "remote_tool_call"
_RESUME_VALUES = "interrupt_resume"
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

    def __init__(self, graph: Any, *, name: str, distributed: bool = False) -> None:
        """`distributed`: any process may execute a thread's next run. Raises ConfigError."""
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
        self._check_memory(name, distributed=distributed)

    def _check_memory(self, name: str, *, distributed: bool) -> None:
        if type(self.checkpointer).__name__ != "InMemoryCheckpointer":
            return
        if distributed:
            raise ConfigError(
                f"agent {name!r}: the memory of an InMemoryCheckpointer is in one process, and with "
                "PostgreSQL any process may execute a thread's next run; pass a checkpointer that "
                "all of them share to compile(), such as 10xgraph's PgCheckpointer"
            )
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
        config = await self._thread_config(thread_id)
        await self.checkpointer.aclear_state(config)
        await self.checkpointer.aclean_thread(config)
        if await self.checkpointer.aget_state_cache(config) is not None:
            # 10xscale-agentflow clears only what is not cached, and reads the cache first.
            await self.checkpointer.aput_state_cache(config, copy.deepcopy(self._first_state))

    async def undo(self, thread_id: str, run_id: str) -> None:
        """Cuts the run's messages off. What else its nodes put into the state stays there: a
        checkpointer of 10xgraph keeps one state of a thread and none of the earlier ones."""
        config = await self._thread_config(thread_id)
        state = await self._load(config)
        if state is None:
            return
        for place, message in enumerate(state.context):
            if message.metadata.get(_RUN) == run_id:
                state.context = state.context[:place]
                await self._save_settled(config, state)
                return

    async def stream(
        self, context: RunContext, messages: Sequence[Message]
    ) -> AsyncGenerator[AgentEvent, None]:
        config = _config(context)
        begun = await self._begin(context, config, messages)
        turn = Turn()
        ended = False
        with self.container.context():
            try:
                chunks = self._graph.astream(begun, config, self._granularity)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        for event in turn.read(chunk):
                            yield event
                ended = True
            finally:
                if not ended:
                    await self._settle(config)
        if turn.stopped:
            yield AgentAsked(self._find_questions(await self._load(config)))

    async def _begin(
        self, context: RunContext, config: JsonObject, messages: Sequence[Message]
    ) -> JsonObject:
        """The graph's input. `resume_data` of 10xgraph is the same."""
        state = await self._load(config)
        waits = state is not None and state.is_interrupted()
        if context.answers:
            if not waits:
                raise RuntimeError("the graph no longer waits where it asked")
            return self._resume(state, context.answers[-1])
        if waits:
            await self._save_settled(config, state)
        message = self._user_message(messages[-1])
        message.metadata = {**message.metadata, _RUN: context.run_id}
        # Without `state`, a turn after a crash would go on in the middle of the graph.
        return {"messages": [message], "state": {"current_node": START}}

    def _find_questions(self, state: Any) -> Sequence[Interrupt]:
        meta = state.execution_meta
        if meta.interrupt_reason == _REMOTE_TOOL:
            return [
                Interrupt(interrupt_id=call["id"], value=as_json(call))
                for call in _unanswered_calls(state.context)
            ]
        asked = (meta.interrupt_data or {}).get("interrupt")
        if asked is None:  # the graph stops before or after a node: may it go on?
            stop = f"{meta.status.value}:{meta.interrupted_node}:{meta.step}"
            return [Interrupt(interrupt_id=stop, value=None)]
        extra = {key: asked[key] for key in ("message", "response_schema") if asked.get(key)}
        value = {"value": asked["value"], **extra} if extra else asked["value"]
        return [Interrupt(interrupt_id=asked["id"], value=as_json(value))]

    def _resume(self, state: Any, answers: JsonObject) -> JsonObject:
        asked = self._find_questions(state)
        questions = [question.interrupt_id for question in asked]
        given = [answers[key] for key in questions if key in answers]
        if len(given) < len(questions):
            raise RuntimeError("the graph waits for something else than what was answered")
        if state.execution_meta.interrupt_reason == _REMOTE_TOOL:
            results = zip(questions, map(_as_text, given), strict=True)
            return {"messages": [self._tool_message(*result) for result in results]}
        if (state.execution_meta.interrupt_data or {}).get("interrupt"):
            return {"resume": bind_answer(asked[0].value, given[0])}
        return {"value": given[0]}  # in a key of ours: others would change the state

    async def _load(self, config: JsonObject) -> Any:
        """What a run would start with."""
        cached = await self.checkpointer.aget_state_cache(config)
        return cached or await self.checkpointer.aget_state(config)

    async def _thread_config(self, thread_id: str) -> JsonObject:
        try:
            owner = await self.checkpointer.aget_thread_owner(thread_id)
        except NotImplementedError:
            owner = None
        return {"thread_id": thread_id, "user_id": owner or "anonymous"}

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
            state = await self._load(config)
            if state is not None:
                await self._save_settled(config, state)
        except Exception:  # the user's checkpointer; what made the turn fail matters more
            log.exception("thread %s cannot be settled after a failed turn", config["thread_id"])

    async def _save_settled(self, config: JsonObject, state: Any) -> None:
        state.clear_interrupt()
        state.set_current_node(START)
        state.execution_meta.step = 0
        state.execution_meta.internal_data.pop(_RESUME_VALUES, None)
        # Models refuse a conversation with an unanswered tool call.
        missing = [
            self._tool_message(call["id"], NO_RESULT, is_error=True)
            for call in _unanswered_calls(state.context)
        ]
        state.context = [*state.context, *missing]
        await self.checkpointer.aput_state(config, state)
        await self.checkpointer.aput_state_cache(config, state)

    def _tool_message(self, call_id: str, output: str, *, is_error: bool = False) -> Any:
        block = self._types.ToolResultBlock(call_id=call_id, output=output, is_error=is_error)
        return self._types.Message.tool_message([block])


def find_conflicts(agents: Mapping[str, Agent]) -> list[str]:
    """Pairs of graphs that would write into each other's checkpointer."""
    graphs = [(name, agent) for name, agent in agents.items() if isinstance(agent, TenxGraphAgent)]
    return [
        f"agents {name!r} and {other!r}: their graphs share a container, so both would use the "
        "checkpointer compiled last; make each with StateGraph(container=InjectQ())"
        for (name, one), (other, two) in combinations(graphs, 2)
        if one.container is two.container and one.checkpointer is not two.checkpointer
    ]


def _as_text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _unanswered_calls(conversation: Sequence[Any]) -> Sequence[JsonObject]:
    """The calls that the newest messages leave without a result."""
    answered: set[str] = set()
    for message in reversed(conversation):
        if message.role != "tool":
            return [call for call in message.tools_calls or [] if call["id"] not in answered]
        answered.update(call_ids(message))
    return []


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
