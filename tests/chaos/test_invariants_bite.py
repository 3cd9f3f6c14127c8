"""Each invariant notices what it is there for."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos import invariants
from tests.chaos.journal import Answered, Journal, Sent, Stopped
from tests.chaos.snapshot import Snapshot


def make_event(seq: int, kind: str, **data: Any) -> dict[str, Any]:
    return {"run_id": "r1", "seq": seq, "type": kind, "data": json.dumps(data)}


def make_run(run_id: str, turn: int, **own: Any) -> dict[str, Any]:
    nothing = {"lease": None, "stopping": None, "start_after": None, "answers": None}
    whose = {"run_id": run_id, "thread_id": "t1", "owner": "alice", "agent": "talks"}
    return {**whose, "turn": turn, "status": "success", **nothing, **own}


def make_turn(run_id: str, turn: int, *said: str) -> list[dict[str, Any]]:
    return [
        {
            "message_id": f"{run_id}.{position}",
            "run_id": run_id,
            "turn": turn,
            "position": position,
            "role": "assistant" if position else "user",
            "content": content,
        }
        for position, content in enumerate(said)
    ]


class Past:
    """Two turns on one thread: the first was answered, the second asked something and was told."""

    def __init__(self) -> None:
        self.journal = Journal(threads={"t1": "alice"})
        for number, content in enumerate(["a say", "b ask"], 1):
            sent = Sent("alice", "t1", content, "key", "enqueue", delayed=False, at=10.0 * number)
            sent.acknowledged_at = sent.at + 1
            sent.result = "accepted"
            sent.runs = {f"r{number}"}
            self.journal.sent[content] = sent
        self.journal.answered = [Answered("r2", "q", "yes", "accepted")]
        self.journal.events["r1", 1] = ("run.started", {})
        reply = {"message_id": "r1.1", "content": "a/0 said"}
        self.journal.replies["r1"] = {"status": "success", "thread_id": "t1", "messages": [reply]}
        ended = [make_event(1, "run.started"), make_event(2, "run.completed", status="success")]
        resumed = [
            make_event(1, "run.started"),
            make_event(2, "interrupt", status="interrupted"),
            make_event(3, "run.resumed"),
            make_event(4, "run.completed", status="success"),
        ]
        thread = {"owner": "alice", "status": "idle", "hidden": 0, "interrupted_run": None}
        self.now = Snapshot(
            problems=[],
            threads={"t1": thread},
            runs={"r1": make_run("r1", 1), "r2": make_run("r2", 2, answers='[{"q": "yes"}]')},
            messages={
                "r1": make_turn("r1", 1, "a say", "a/0 said"),
                "r2": make_turn("r2", 2, "b ask", "b/0 was told yes"),
            },
            events={"r1": ended, "r2": resumed},
            keys=[{"thread_id": "t1"}],
            graph_threads=set(),
            trace=[["works", "t1", "r1"], ["works", "t1", "r2"]],
        )


Tamper = Callable[[Past], object]

TAMPERING: list[tuple[str, Tamper]] = [
    ("the_file_is_whole", lambda p: p.now.problems.append("row 7 missing from index")),
    ("accepted_messages_are_in_the_history", lambda p: p.now.messages.pop("r2")),
    (
        "accepted_messages_are_in_the_history",
        lambda p: p.now.messages.update(r3=make_turn("r3", 3, "a say")),
    ),
    ("nothing_is_there_that_nobody_sent", lambda p: p.journal.sent.pop("a say")),
    ("acknowledged_answers_are_the_stored_ones", lambda p: p.now.messages["r1"].pop()),
    ("acknowledged_answers_are_the_stored_ones", lambda p: p.now.runs["r1"].update(status="error")),
    ("seen_events_are_the_stored_ones", lambda p: p.now.events["r1"][0].update(type="custom")),
    ("event_logs_are_gapless_and_end_once", lambda p: p.now.events["r1"].pop(0)),
    ("event_logs_are_gapless_and_end_once", lambda p: p.now.events["r1"].pop()),
    (
        "event_logs_are_gapless_and_end_once",
        lambda p: p.now.events["r1"].append(make_event(3, "run.failed", status="error")),
    ),
    ("event_logs_are_gapless_and_end_once", lambda p: p.now.runs["r1"].update(status="error")),
    ("event_logs_are_gapless_and_end_once", lambda p: p.now.runs["r2"].update(answers=None)),
    ("a_key_makes_one_run", lambda p: p.journal.sent["a say"].runs.add("r3")),
    ("an_answer_counts_once", lambda p: p.now.runs["r2"].update(answers=None)),
    ("an_answer_counts_once", lambda p: p.now.runs["r2"].update(answers='[{"q": "no"}]')),
    (
        "an_answer_counts_once",
        lambda p: p.now.runs["r2"].update(answers='[{"q": "yes"}, {"q": "yes"}]'),
    ),
    ("runs_say_what_they_have_to", lambda p: p.now.messages["r1"].pop()),
    ("runs_say_what_they_have_to", lambda p: p.now.runs["r1"].update(status="error")),
    (
        "runs_say_what_they_have_to",
        lambda p: p.now.messages.update(r1=make_turn("r1", 1, "a say", "a/0 said", "a/0 said")),
    ),
    ("one_run_at_a_time", lambda p: p.now.trace.append(["overlap", "t1", "r2"])),
    ("one_run_at_a_time", lambda p: [r.update(status="running") for r in p.now.runs.values()]),
    (
        "runs_are_executed_in_the_order_of_their_turns",
        lambda p: p.now.trace.append(["works", "t1", "r1"]),
    ),
    (
        "messages_are_in_the_order_of_their_acknowledgement",
        lambda p: p.now.runs["r1"].update(turn=3),
    ),
    (
        "what_was_rolled_back_is_forgotten",
        lambda p: p.journal.stopped.append(Stopped("r1", "rollback", status="cancelled")),
    ),
    ("threads_are_there_until_they_are_deleted", lambda p: p.now.threads.clear()),
    ("threads_are_there_until_they_are_deleted", lambda p: p.journal.deleted.add("t1")),
    ("every_run_has_ended", lambda p: p.now.runs["r2"].update(status="running")),
    ("threads_say_how_they_stand", lambda p: p.now.threads["t1"].update(status="busy")),
    ("deletions_are_finished", lambda p: p.now.threads["t1"].update(hidden=1)),
    ("nothing_is_left_of_what_is_gone", lambda p: p.now.graph_threads.add("t0")),
    ("nothing_is_left_of_what_is_gone", lambda p: p.now.runs.pop("r1")),
]


def test_there_is_one_for_every_invariant() -> None:
    assert {name for name, _ in TAMPERING} == {each.__name__ for each in invariants.SETTLED}


def test_they_have_nothing_to_say_about_what_is_right() -> None:
    past = Past()
    assert [p for each in invariants.SETTLED for p in each(past.journal, past.now)] == []
    assert list(invariants.what_has_ended_stays_as_it_was(Journal(), past.now, Past().now)) == []


@pytest.mark.parametrize(("name", "tamper"), TAMPERING)
def test_it_notices(name: str, tamper: Tamper) -> None:
    past = Past()
    tamper(past)
    assert list(getattr(invariants, name)(past.journal, past.now))


def test_what_has_ended_may_not_change() -> None:
    later = Past().now
    later.events["r1"].pop()
    assert list(invariants.what_has_ended_stays_as_it_was(Journal(), Past().now, later))


def test_what_was_to_stop_may_not_go_on() -> None:
    before = Past().now
    before.runs["r2"].update(status="running", stopping="rollback")
    went_on, kept = Past().now, Past().now
    kept.runs["r2"].update(status="cancelled")
    for later in (went_on, kept):
        assert list(invariants.what_was_to_stop_has_not_gone_on(Journal(), before, later))
    del kept.messages["r2"]
    assert not list(invariants.what_was_to_stop_has_not_gone_on(Journal(), before, kept))
