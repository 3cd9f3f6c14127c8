"""How a LangGraph run begins again: after a human's answer, or after a crash."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.types import Command, StateSnapshot

from agentflow_server.adapters.approving import bind_answer
from agentflow_server.adapters.langgraph_states import Graph, address
from agentflow_server.adapters.langgraph_turn import identity
from agentflow_server.adapters.shapes import as_json
from agentflow_server.interfaces import RunContext
from agentflow_server.models import Interrupt, JsonObject, Message


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a graph is started with. `told` are the messages that are told already; with `asked` it
    is not started at all, since it still waits."""

    input: Any
    told: Sequence[Any] | None = None
    asked: Sequence[Interrupt] = ()


def find_questions(snapshot: StateSnapshot) -> Sequence[Interrupt]:
    """A graph that stops before or after a node asks nothing: it is asked whether it may go on."""
    questions = {asked.id: as_json(asked.value) for asked in snapshot.interrupts}
    if not questions:
        questions = {_stop_id(snapshot): None}
    return [Interrupt(interrupt_id=key, value=value) for key, value in questions.items()]


async def plan_resuming(
    graph: Graph, context: RunContext, snapshot: StateSnapshot, messages: Sequence[Message]
) -> Beginning:
    """`snapshot` is the thread's newest state, and the run's own."""
    answers = context.answers[-1] if context.answers else {}
    given = {
        asked.id: bind_answer(as_json(asked.value), answers[asked.id])
        for asked in snapshot.interrupts
        if asked.id in answers
    }
    resume: Command[Any] | None = Command(resume=given) if given else None
    if context.attempt == 1:
        return Beginning(resume, told=_messages_of(snapshot))
    told = await _find_told(graph, context, snapshot, messages)
    if not _was_allowed(snapshot, context.answers) and await _has_breakpoint(graph, snapshot):
        return Beginning(None, asked=find_questions(snapshot))
    return Beginning(resume, told=told)


async def _find_told(
    graph: Graph, context: RunContext, snapshot: StateSnapshot, messages: Sequence[Message]
) -> Sequence[Any]:
    """What a client knew when the run began, or was last resumed: of the rest nobody can tell
    what reached him before the crash."""
    if context.answers:
        mine = {"run_id": context.run_id}
        async for old in graph.aget_state_history(address(context.thread_id), filter=mine):
            if any(asked.interrupt_id in context.answers[-1] for asked in find_questions(old)):
                return _messages_of(old)
    told = _messages_of(snapshot)
    places = [n for n, said in enumerate(told) if identity(said) == messages[-1].message_id]
    return told if context.answers or not places else told[: places[-1] + 1]


async def _has_breakpoint(graph: Graph, snapshot: StateSnapshot) -> bool:
    """Whether the graph stops here, if nobody allows it to go on."""
    if not snapshot.next or snapshot.interrupts:
        return False
    if _names(graph.interrupt_before_nodes, snapshot.next):
        return True
    if not graph.interrupt_after_nodes or snapshot.parent_config is None:
        return False
    before = await graph.aget_state(snapshot.parent_config)
    return _names(graph.interrupt_after_nodes, [task.name for task in before.tasks])


def _names(wanted: str | Sequence[str], nodes: Sequence[str]) -> bool:
    return bool(nodes) if wanted == "*" else not set(wanted).isdisjoint(nodes)


def _stop_id(snapshot: StateSnapshot) -> str:
    """Tells this stop from every other one, and a human where it is."""
    return f"{_checkpoint_id(snapshot)}:{','.join(snapshot.next)}"


def _was_allowed(snapshot: StateSnapshot, answers: Sequence[JsonObject]) -> bool:
    here = _checkpoint_id(snapshot)
    return any(key.partition(":")[0] == here for given in answers for key in given)


def _checkpoint_id(snapshot: StateSnapshot) -> str:
    checkpoint_id: str = snapshot.config["configurable"]["checkpoint_id"]
    return checkpoint_id


def _messages_of(snapshot: StateSnapshot) -> Sequence[Any]:
    messages: Sequence[Any] = snapshot.values.get("messages", [])
    return messages
