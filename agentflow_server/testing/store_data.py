"""Small valid data for the tests of a Store."""
# ruff: noqa: S101 - asserting is what a suite is for

from typing import Any
from uuid import uuid4

from agentflow_server.interfaces import Store
from agentflow_server.models import (
    ActiveRun,
    Answer,
    Event,
    Interrupt,
    Message,
    NewRun,
    RunError,
    RunOutcome,
    Thread,
)

ALICE, BOB = "alice", "bob"

SUCCESS = RunOutcome("success")
FAILURE = RunOutcome("error", RunError(code="agent_error", detail="The agent failed"))


def make_id() -> str:
    return str(uuid4())


async def make_thread(store: Store, owner: str = ALICE, **metadata: Any) -> Thread:
    return await store.create_thread(owner, make_id(), metadata=metadata)


def new_run(thread_id: str, content: Any = "Hello", **changes: Any) -> NewRun:
    values: dict[str, Any] = {
        "run_id": make_id(),
        "thread_id": thread_id,
        "agent": "echo",
        "message_id": make_id(),
        "content": content,
        "metadata": {},
        "claims": {"user_id": ALICE},
        "config": {},
    }
    return NewRun(**(values | changes))


async def start(store: Store, thread_id: str, content: Any = "Hello", **changes: Any) -> ActiveRun:
    """Start a run on a free thread of Alice's."""
    started = await store.start_run(ALICE, new_run(thread_id, content, **changes))
    assert started.active is not None
    return started.active


async def claim(store: Store, thread_id: str) -> ActiveRun:
    """The next run that waits, which is on this thread."""
    claimed = await store.claim_next()
    assert claimed is not None
    assert claimed.run.thread_id == thread_id
    return claimed


async def resume(store: Store, thread_id: str, run_id: str, answer: Answer) -> ActiveRun:
    """Answer a run of Alice's, and claim it."""
    resumed = await store.resume_run(ALICE, thread_id, run_id, answer)
    assert resumed.active is not None
    assert (resumed.run, resumed.last_seq) == (resumed.active.run, resumed.active.last_seq)
    return resumed.active


def answer(active: ActiveRun, content: Any = "Hi") -> Message:
    return Message(
        message_id=make_id(),
        thread_id=active.run.thread_id,
        run_id=active.run.run_id,
        role="assistant",
        content=content,
        created_at=active.run.created_at,
        metadata={},
    )


def events(active: ActiveRun, *numbers: int) -> list[Event]:
    return [
        Event(active.run.run_id, seq, "message.delta", {"delta": f"part {seq}"}) for seq in numbers
    ]


async def take_turn(store: Store, thread_id: str, question: str, reply: str) -> ActiveRun | None:
    """A whole turn of a free thread; returns what `finish_run` claimed."""
    active = await start(store, thread_id, question)
    return await store.finish_run(active, SUCCESS, [answer(active, reply)], [])


def asking(*interrupt_ids: str) -> RunOutcome:
    """The end of a run that has a question for each id."""
    questions = [Interrupt(interrupt_id=one, value={"question": one}) for one in interrupt_ids]
    return RunOutcome("interrupted", interrupts=questions)


async def ask(store: Store, thread_id: str, *interrupt_ids: str) -> ActiveRun:
    """A run on a free thread of Alice's that has ended with questions; the lease is an old one."""
    active = await start(store, thread_id, "question")
    await store.finish_run(active, asking(*interrupt_ids), [], events(active, 1))
    return active


async def list_contents(store: Store, thread_id: str) -> list[Any]:
    page = await store.list_messages(ALICE, thread_id, limit=99)
    return [message.content for message in page.data]


async def look_at(store: Store, thread_id: str) -> Any:
    """Everything there is to see of a thread of Alice's, to compare with later."""
    runs = (await store.list_runs(ALICE, thread_id, limit=99)).data
    return (
        await store.get_thread(ALICE, thread_id),
        runs,
        [await store.get_run(ALICE, thread_id, run.run_id) for run in runs],
        [await store.list_events(run.run_id, after=0, limit=99) for run in runs],
        (await store.list_messages(ALICE, thread_id, limit=99)).data,
        (await store.list_interrupts(ALICE, limit=99)).data,
        await store.interrupted_runs(),
    )
