"""What holds whatever happens. Each invariant is a function that yields what contradicts it.

ALWAYS holds in every moment, so also in what a killed server left behind; SETTLED when a server
has had the time to finish what it found; UNCHANGED between two moments.
"""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.journal import Journal, Sent
from tests.chaos.plans import said
from tests.chaos.snapshot import FINAL, Snapshot

Problems = Iterator[str]
LAST_EVENTS = {
    "success": "run.completed",
    "error": "run.failed",
    "timeout": "run.failed",
    "cancelled": "run.cancelled",
    "interrupted": "interrupt",
}
ENDING = {"run.completed", "run.failed", "run.cancelled"}


def the_file_is_whole(_: Journal, now: Snapshot) -> Problems:
    yield from now.problems


def accepted_messages_are_in_the_history(past: Journal, now: Snapshot) -> Problems:
    """Unless the thread is deleted, or the turn was rolled back at somebody's wish."""
    there = _questions(now)
    for sent in past.sent.values():
        count = len(there.get(sent.content, ()))
        if count > 1:
            yield f"{sent.content!r} is there {count} times"
        if sent.result == "refused" and count:
            yield f"{sent.content!r} is there although it was refused"
        if sent.result == "accepted" and not count and not _may_be_gone(past, now, sent):
            yield f"{sent.content!r} was accepted and is gone"


def nothing_is_there_that_nobody_sent(past: Journal, now: Snapshot) -> Problems:
    for content, runs in _questions(now).items():
        sent = past.sent.get(content)
        if sent is None:
            yield f"{content!r} was never sent"
            continue
        for run_id in runs:
            run = now.runs[run_id]
            if (run["thread_id"], run["owner"]) != (sent.thread_id, sent.owner):
                yield f"{content!r} is in {run['thread_id']} of {run['owner']}"


def acknowledged_answers_are_the_stored_ones(past: Journal, now: Snapshot) -> Problems:
    for run_id, turn in past.replies.items():
        run = now.runs.get(run_id)
        if run is None:
            if turn["thread_id"] not in past.deleting:
                yield f"run {run_id} was answered and is gone"
        elif run["status"] != turn["status"]:
            yield f"run {run_id} was {turn['status']} and is {run['status']}"
        else:
            stored = {m["message_id"]: m["content"] for m in now.messages.get(run_id, ())}
            wanted = {m["message_id"]: m["content"] for m in turn["messages"]}
            forgotten = run["status"] == "cancelled" and not stored
            if not wanted.items() <= stored.items() and not forgotten:
                yield f"run {run_id} said {wanted}, stored is {stored}"


def seen_events_are_the_stored_ones(past: Journal, now: Snapshot) -> Problems:
    stored = {
        (run_id, event["seq"]): (event["type"], json.loads(event["data"]))
        for run_id, events in now.events.items()
        for event in events
    }
    for (run_id, seq), seen in past.events.items():
        if run_id in now.runs and stored.get((run_id, seq)) != seen:
            yield f"event {seq} of {run_id} was {seen}, stored is {stored.get((run_id, seq))}"


def event_logs_are_gapless_and_end_once(_: Journal, now: Snapshot) -> Problems:
    for run_id, run in now.runs.items():
        events = now.events.get(run_id, [])
        types = [event["type"] for event in events]
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            yield f"run {run_id} has events {[event['seq'] for event in events]}"
        if any(kind in ENDING for kind in types[:-1]):
            yield f"run {run_id} went on after its end: {types}"
        if types and types[0] not in {"run.started", "run.cancelled"}:
            yield f"run {run_id} begins with {types[0]}"
        last = types[-1] if types else None
        status = run["status"]
        if status in LAST_EVENTS and last != LAST_EVENTS[status]:
            yield f"run {run_id} is {status} and its last event {last}"
        elif status in LAST_EVENTS and json.loads(events[-1]["data"])["status"] != status:
            yield f"the last event of {run_id} does not say {status}"
        if status not in LAST_EVENTS and last in ENDING:
            yield f"run {run_id} is {status} and its last event {last}"
        if status == "pending" and types and run["started_at"] is None:
            yield f"run {run_id} waits and has events {types}"
        asked = types.count("interrupt") - (status == "interrupted")
        if asked != len(now.answers(run_id)):
            yield f"run {run_id}, {status}, went on without an answer: {types}"


def a_key_makes_one_run(past: Journal, now: Snapshot) -> Problems:
    for sent in past.sent.values():
        if len(sent.runs) > 1:
            yield f"{sent.content!r} is the runs {sent.runs}"
        for run_id in sent.runs & now.runs.keys():
            content = now.content(run_id)
            if content not in (None, sent.content):
                yield f"run {run_id} answers {content!r}, not {sent.content!r}"


def an_answer_counts_once(past: Journal, now: Snapshot) -> Problems:
    used = [
        (run_id, question, value)
        for run_id in now.runs
        for given in now.answers(run_id)
        for question, value in given.items()
    ]
    known = {(each.run_id, each.value): each for each in past.answered}
    for run_id, question, value in used:
        each = known.get((run_id, value))
        if each is None or (each.names_it and each.interrupt_id != question):
            yield f"nobody gave {question} of {run_id} the answer {value}"
    counts = Counter((run_id, value) for run_id, _, value in used)
    for place, each in known.items():
        if counts[place] > 1:
            yield f"the answer {place} is there {counts[place]} times"
        if each.result == "refused" and counts[place]:
            yield f"the answer {place} was refused and counts"
        if each.result == "accepted" and not counts[place] and each.run_id in now.runs:
            yield f"the answer {place} was accepted and is gone"
    per_question = Counter(place[:2] for place in used)
    yield from (
        f"{place} has {count} answers" for place, count in per_question.items() if count > 1
    )


def runs_say_what_they_have_to(_: Journal, now: Snapshot) -> Problems:
    """All of it and once, if they succeed; nothing or a beginning otherwise."""
    for run_id, run in now.runs.items():
        turn = now.messages.get(run_id)
        if not turn:
            if run["status"] != "cancelled":
                yield f"run {run_id} is {run['status']} and has no message"
            continue
        if [message["position"] for message in turn] != list(range(len(turn))):
            yield f"run {run_id} has messages at {[m['position'] for m in turn]}"
        if (turn[0]["role"], {m["turn"] for m in turn}) != ("user", {run["turn"]}):
            yield f"run {run_id} of turn {run['turn']} is not in its place"
        told = [value for given in now.answers(run_id) for value in given.values()]
        wanted, before = said(run["agent"], turn[0]["content"], told)
        keeps = before if run["agent"] == "graph" else 0
        got = [(message["role"], message["content"]) for message in turn[1:]]
        if not _may_have_said(run["status"], run["agent"], got, wanted, keeps):
            yield f"run {run_id}, {run['status']}, {turn[0]['content']!r} {told} said {got}"


def _may_have_said(
    status: str,
    agent: str,
    got: list[tuple[str, str]],
    wanted: list[tuple[str, str]],
    keeps: int,
) -> bool:
    match status:
        case "success":
            return got == wanted
        case "interrupted":
            return got == (wanted if agent == "graph" else [])
        case "cancelled":
            whole = got[:-1]
            fits = whole == wanted[: len(whole)] and keeps <= len(got) <= len(wanted)
            last = wanted[len(whole)] if got and fits else None
            return fits and (
                last is None or (got[-1][0] == last[0] and last[1].startswith(got[-1][1]))
            )
        case _:
            return got == wanted[:keeps]


def one_run_at_a_time(_: Journal, now: Snapshot) -> Problems:
    running = Counter(r["thread_id"] for r in now.runs.values() if r["status"] == "running")
    yield from (f"{count} runs run on {thread}" for thread, count in running.items() if count > 1)
    yield from (f"found at work: {line}" for line in now.trace if line[0] == "overlap")


def runs_are_executed_in_the_order_of_their_turns(_: Journal, now: Snapshot) -> Problems:
    executed: defaultdict[str, list[str]] = defaultdict(list)
    for word, thread_id, run_id in now.trace:
        if word == "works" and run_id in now.runs:
            executed[thread_id].append(run_id)
    for thread_id, run_ids in executed.items():
        turns = [now.runs[run_id]["turn"] for run_id, _ in itertools.groupby(run_ids)]
        if any(later <= earlier for earlier, later in itertools.pairwise(turns)):
            yield f"thread {thread_id} executed the turns {turns}"


def messages_are_in_the_order_of_their_acknowledgement(past: Journal, now: Snapshot) -> Problems:
    """What was accepted before another message was sent stands before it."""
    turns = {c: now.runs[run_ids[0]]["turn"] for c, run_ids in _questions(now).items()}
    threads: defaultdict[str, list[Sent]] = defaultdict(list)
    for sent in past.sent.values():
        if sent.content in turns and not sent.delayed:
            threads[sent.thread_id].append(sent)
    for several in threads.values():
        for one, other in itertools.permutations(several, 2):
            before = one.acknowledged_at is not None and one.acknowledged_at < other.at
            if before and turns[one.content] > turns[other.content]:
                yield f"{one.content!r} was accepted before {other.content!r} and comes after it"


def what_was_rolled_back_is_forgotten(past: Journal, now: Snapshot) -> Problems:
    for each in past.stopped:
        rolled_back = each.action == "rollback" and each.status == "cancelled"
        if rolled_back and now.messages.get(each.run_id):
            yield f"run {each.run_id} was rolled back and has messages"


def threads_are_there_until_they_are_deleted(past: Journal, now: Snapshot) -> Problems:
    for thread_id, owner in past.threads.items():
        thread = now.threads.get(thread_id)
        if thread is None and thread_id not in past.deleting:
            yield f"thread {thread_id} was made and is gone"
        if thread is not None and thread["owner"] != owner:
            yield f"thread {thread_id} of {owner} belongs to {thread['owner']}"
        if thread_id in past.deleted and thread is not None and not thread["hidden"]:
            yield f"thread {thread_id} was deleted and is there"


def nothing_is_left_of_what_is_gone(_: Journal, now: Snapshot) -> Problems:
    for what, found in {
        "messages": now.messages.keys() - now.runs.keys(),
        "events": now.events.keys() - now.runs.keys(),
        "runs": {run["thread_id"] for run in now.runs.values()} - now.threads.keys(),
        "keys": {key["thread_id"] for key in now.keys} - now.threads.keys(),
        "checkpoints": now.graph_threads - now.threads.keys(),
    }.items():
        yield from (f"{what} of {owner} are left" for owner in found)


def deletions_are_finished(_: Journal, now: Snapshot) -> Problems:
    yield from (f"thread {t} is half deleted" for t, row in now.threads.items() if row["hidden"])


def every_run_has_ended(_: Journal, now: Snapshot) -> Problems:
    for run_id, run in now.runs.items():
        if run["status"] in {"pending", "running"}:
            yield f"run {run_id} is {run['status']} for ever"
        if run["lease"] or run["stopping"] or run["start_after"]:
            yield f"run {run_id} still has a lease, a wish to stop it, or a time"


def threads_say_how_they_stand(_: Journal, now: Snapshot) -> Problems:
    for thread_id, thread in now.threads.items():
        waiting = thread["interrupted_run"]
        if thread["status"] == "busy":
            yield f"thread {thread_id} is busy with nothing"
        if (thread["status"] == "interrupted") != (waiting is not None):
            yield f"thread {thread_id} is {thread['status']} and waits for {waiting}"
        if waiting and now.runs[waiting]["status"] != "interrupted":
            yield f"thread {thread_id} waits for a run that is {now.runs[waiting]['status']}"


def what_has_ended_stays_as_it_was(past: Journal, before: Snapshot, now: Snapshot) -> Problems:
    for run_id, run in before.runs.items():
        if run["status"] not in FINAL:
            continue
        if run_id not in now.runs:
            if run["thread_id"] not in past.deleting:
                yield f"run {run_id} is gone"
        elif (run, before.messages.get(run_id), before.events.get(run_id)) != (
            now.runs[run_id],
            now.messages.get(run_id),
            now.events.get(run_id),
        ):
            yield f"run {run_id} had ended as {run} and is {now.runs[run_id]}"


def what_was_to_stop_has_not_gone_on(past: Journal, before: Snapshot, now: Snapshot) -> Problems:
    """A wish to stop a run that the server took to its grave is a command to the next one."""
    for run_id, run in before.runs.items():
        later = now.runs.get(run_id)
        if not run["stopping"] or later is None:
            continue
        if later["status"] != "cancelled" and later["stopping"] is None:
            yield f"run {run_id} was to {run['stopping']} and is {later['status']}"
        forgotten = run["stopping"] == "rollback" and later["status"] == "cancelled"
        if forgotten and now.messages.get(run_id):
            yield f"run {run_id} was to be rolled back and has messages"


ALWAYS = (
    the_file_is_whole,
    accepted_messages_are_in_the_history,
    nothing_is_there_that_nobody_sent,
    acknowledged_answers_are_the_stored_ones,
    seen_events_are_the_stored_ones,
    event_logs_are_gapless_and_end_once,
    a_key_makes_one_run,
    an_answer_counts_once,
    runs_say_what_they_have_to,
    one_run_at_a_time,
    runs_are_executed_in_the_order_of_their_turns,
    messages_are_in_the_order_of_their_acknowledgement,
    what_was_rolled_back_is_forgotten,
    threads_are_there_until_they_are_deleted,
)
SETTLED = (
    *ALWAYS,
    every_run_has_ended,
    threads_say_how_they_stand,
    deletions_are_finished,
    nothing_is_left_of_what_is_gone,
)
UNCHANGED = (what_has_ended_stays_as_it_was, what_was_to_stop_has_not_gone_on)


def _questions(now: Snapshot) -> dict[str, list[str]]:
    """content → run_ids."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for run_id, turn in now.messages.items():
        found[turn[0]["content"]].append(run_id)
    return found


def _may_be_gone(past: Journal, now: Snapshot, sent: Sent) -> bool:
    if sent.thread_id in past.deleting:
        return True
    runs = [now.runs[run_id] for run_id in sent.runs if run_id in now.runs]
    if any(run["status"] != "cancelled" for run in runs):
        return False
    taken_back = any(s.run_id in sent.runs and s.action == "rollback" for s in past.stopped)
    # One that was sent before may have arrived after, at the third try.
    return taken_back or any(
        other.on_busy == "rollback"
        and other.thread_id == sent.thread_id
        and (other.acknowledged_at is None or other.acknowledged_at >= sent.at)
        for other in past.sent.values()
    )
