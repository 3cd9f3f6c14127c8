"""What every Store has to get right about runs that ask, and go on when they are answered."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agentflow_server.errors import InvalidRequest, LeaseLost, NotFound, NotInterrupted
from agentflow_server.interfaces import Store
from agentflow_server.models import ActiveRun, Answer, Interrupt, RunOutcome
from agentflow_server.models.approvals import make_approval
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    FAILURE,
    SUCCESS,
    answer,
    ask,
    asking,
    claim,
    events,
    list_contents,
    look_at,
    make_id,
    make_thread,
    new_run,
    resume,
    start,
)

YES = Answer(value="yes")


class InterruptTests:
    # Asking

    async def test_a_question_is_found_in_the_run_the_thread_and_the_list(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1", "q2")
        questions = list(asking("q1", "q2").interrupts)
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert (run.status, run.interrupts) == ("interrupted", questions)
        assert (await store.list_runs(ALICE, thread.thread_id, limit=1)).data == [run]
        found = await store.get_thread(ALICE, thread.thread_id)
        assert (found.status, found.interrupts) == ("interrupted", questions)
        assert (await store.list_threads(ALICE, limit=9)).data == [found]
        (pending,) = (await store.list_interrupts(ALICE, limit=9)).data
        assert (pending.thread_id, pending.run_id) == (thread.thread_id, run.run_id)
        assert (pending.agent, pending.interrupts) == ("echo", questions)
        assert pending.asked_at == run.ended_at

    async def test_a_thread_that_asks_can_be_deleted(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        await store.hide_thread(ALICE, thread.thread_id)
        assert (await store.list_interrupts(ALICE, limit=9)).data == []
        with pytest.raises(NotFound):
            await resume(store, thread.thread_id, active.run.run_id, YES)
        await store.purge_thread(thread.thread_id)
        assert (await store.list_interrupts(ALICE, limit=9)).data == []

    # Answering

    async def test_a_run_that_is_answered_goes_on_under_a_new_lease(self, store: Store) -> None:
        thread = await make_thread(store)
        config = {"tags": ["a"]}
        active = await start(store, thread.thread_id, metadata={"m": 1}, config=config)
        await store.finish_run(active, asking("q1"), [], events(active, 1, 2))
        resumed = await resume(store, thread.thread_id, active.run.run_id, YES)
        assert resumed.lease
        assert resumed.lease != active.lease
        assert list(resumed.answers) == [{"q1": "yes"}]
        expected = replace(active, lease=resumed.lease, last_seq=2, answers=resumed.answers)
        assert resumed == expected
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert run == active.run
        assert list(await store.interrupted_runs()) == [resumed]

    async def test_a_question_is_gone_once_it_is_answered(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        resumed = await resume(store, thread.thread_id, active.run.run_id, YES)
        found = await store.get_thread(ALICE, thread.thread_id)
        assert (found.status, found.interrupts) == ("busy", [])
        assert (await store.list_interrupts(ALICE, limit=9)).data == []
        await store.finish_run(resumed, SUCCESS, [], [])
        found = await store.get_thread(ALICE, thread.thread_id)
        assert (found.status, found.interrupts) == ("idle", [])
        run = await store.get_run(ALICE, thread.thread_id, active.run.run_id)
        assert (run.status, run.interrupts) == ("success", [])
        assert run.ended_at is not None

    async def test_a_run_may_fail_after_its_answer(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        resumed = await resume(store, thread.thread_id, active.run.run_id, YES)
        await store.finish_run(resumed, FAILURE, [], [])
        found = await store.get_thread(ALICE, thread.thread_id)
        assert (found.status, found.interrupts) == ("error", [])

    async def test_every_answer_is_kept_in_order(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        run_id = active.run.run_id
        values: list[Any] = [None, False, {"grün": [1, 2.5, None]}, "last"]
        for n, value in enumerate(values, 1):
            active = await resume(store, thread.thread_id, run_id, Answer(value=value))
            assert list(active.answers) == [
                {f"q{m}": given} for m, given in enumerate(values[:n], 1)
            ]
            await store.finish_run(active, asking(f"q{n + 1}"), [], [])
            run = await store.get_run(ALICE, thread.thread_id, run_id)
            assert run.interrupts == asking(f"q{n + 1}").interrupts

    @pytest.mark.parametrize("ids", [("q1",), ("q1", "q2", "q3")])
    async def test_every_question_gets_its_own_answer(
        self, store: Store, ids: tuple[str, ...]
    ) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, *ids)
        given = {one: f"answer to {one}" for one in reversed(ids)}
        resumed = await resume(store, thread.thread_id, active.run.run_id, Answer(by_id=given))
        assert list(resumed.answers) == [given]

    @pytest.mark.parametrize(
        ("ids", "given"),
        [
            (("q1", "q2"), Answer(value="both")),
            (("q1", "q2"), Answer(by_id={"q1": 1})),
            (("q1", "q2"), Answer(by_id={"q1": 1, "q2": 2, "q3": 3})),
            (("q1", "q2"), Answer(by_id={})),
            (("q1",), Answer(by_id={"q2": 1})),
            (("q1",), Answer(by_id={"Q1": 1})),
        ],
    )
    async def test_answers_that_do_not_fit_change_nothing(
        self, store: Store, ids: tuple[str, ...], given: Answer
    ) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, *ids)
        before = await look_at(store, thread.thread_id)
        with pytest.raises(InvalidRequest):
            await resume(store, thread.thread_id, active.run.run_id, given)
        assert await look_at(store, thread.thread_id) == before
        right = Answer(by_id=dict.fromkeys(ids, "now right"))
        await resume(store, thread.thread_id, active.run.run_id, right)

    async def test_an_approval_takes_nothing_but_a_yes_or_a_no(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        run_id = active.run.run_id
        approval = Interrupt(interrupt_id="a", value=make_approval("send", {"to": "bob"}))
        for yes in (True, {"approved": False, "comment": "no"}):
            active = await resume(store, thread.thread_id, run_id, Answer(value=yes))
            await store.finish_run(active, RunOutcome("interrupted", interrupts=[approval]), [], [])
            for odd in ("yes", 1, None, {"approved": "true"}):
                for given in (Answer(value=odd), Answer(by_id={"a": odd})):
                    with pytest.raises(InvalidRequest):
                        await resume(store, thread.thread_id, run_id, given)

    async def test_one_of_many_answers_counts(self, store: Store) -> None:
        thread = await make_thread(store)
        run_id = (await ask(store, thread.thread_id, "q1")).run.run_id
        attempts = await asyncio.gather(
            *(resume(store, thread.thread_id, run_id, Answer(value=n)) for n in range(5)),
            return_exceptions=True,
        )
        (winner,) = [one for one in attempts if isinstance(one, ActiveRun)]
        assert [type(one) for one in attempts].count(NotInterrupted) == 4
        assert list(await store.interrupted_runs()) == [winner]

    async def test_what_was_said_after_an_answer_follows_what_was_said_before(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "book a flight")
        run_id = active.run.run_id
        said = [answer(active, text) for text in ("looking", "found", "paid", "sent", "bye")]
        await store.finish_run(active, asking("q1"), said[:2], [])
        active = await resume(store, thread.thread_id, run_id, YES)
        assert list(await store.history(active, limit=None)) == [active.message]
        await store.finish_run(active, asking("q2"), said[2:4], [])
        active = await resume(store, thread.thread_id, run_id, YES)
        await store.finish_run(active, SUCCESS, said[4:], [])
        assert list(await store.run_messages(run_id)) == [active.message, *said]
        following = await start(store, thread.thread_id, "thanks")
        history = await store.history(following, limit=None)
        assert list(history) == [active.message, *said, following.message]

    async def test_the_events_of_a_run_go_on_after_its_answer(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        resumed = await resume(store, thread.thread_id, active.run.run_id, YES)
        assert resumed.last_seq == 1
        await store.append_events(resumed, events(resumed, 2))
        await store.finish_run(resumed, SUCCESS, [], events(resumed, 3))
        stored = await store.list_events(active.run.run_id, after=0, limit=9)
        assert list(stored) == events(active, 1, 2, 3)

    async def test_a_question_waits_while_the_store_is_closed(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        before = await look_at(store, thread.thread_id)
        await store.__aexit__(None, None, None)
        await store.__aenter__()
        assert await look_at(store, thread.thread_id) == before
        assert list(await store.interrupted_runs()) == []
        resumed = await resume(store, thread.thread_id, active.run.run_id, YES)
        assert list(resumed.answers) == [{"q1": "yes"}]

    async def test_the_lease_of_before_the_question_changes_nothing(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await ask(store, thread.thread_id, "q1")
        await resume(store, thread.thread_id, active.run.run_id, YES)
        before = await look_at(store, thread.thread_id)
        with pytest.raises(LeaseLost):
            await store.append_events(active, events(active, 2))
        with pytest.raises(LeaseLost):
            await store.finish_run(active, SUCCESS, [answer(active)], [])
        assert await look_at(store, thread.thread_id) == before

    # What cannot be answered

    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, RunOutcome("interrupted"), None])
    async def test_a_run_that_asks_nothing_is_not_resumed(
        self, store: Store, outcome: RunOutcome | None
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        if outcome is not None:
            await store.finish_run(active, outcome, [], [])
        before = await look_at(store, thread.thread_id)
        for given in (YES, Answer(by_id={})):
            with pytest.raises(NotInterrupted):
                await resume(store, thread.thread_id, active.run.run_id, given)
        assert await look_at(store, thread.thread_id) == before

    async def test_a_waiting_run_is_not_resumed(self, store: Store) -> None:
        thread = await make_thread(store)
        await start(store, thread.thread_id)
        waiting = (await store.start_run(ALICE, new_run(thread.thread_id))).run
        with pytest.raises(NotInterrupted):
            await resume(store, thread.thread_id, waiting.run_id, YES)

    async def test_an_answered_run_is_not_answered_again(self, store: Store) -> None:
        thread = await make_thread(store)
        run_id = (await ask(store, thread.thread_id, "q1")).run.run_id
        resumed = await resume(store, thread.thread_id, run_id, YES)
        with pytest.raises(NotInterrupted):
            await resume(store, thread.thread_id, run_id, YES)
        await store.finish_run(resumed, SUCCESS, [], [])
        with pytest.raises(NotInterrupted):
            await resume(store, thread.thread_id, run_id, YES)

    async def test_nobody_answers_what_he_was_not_asked(self, store: Store) -> None:
        thread, other = await make_thread(store), await make_thread(store)
        run_id = (await ask(store, thread.thread_id, "q1")).run.run_id
        before = await look_at(store, thread.thread_id)
        for owner, thread_id, asked in (
            (BOB, thread.thread_id, run_id),
            (ALICE, other.thread_id, run_id),
            (ALICE, thread.thread_id, make_id()),
            (ALICE, make_id(), run_id),
        ):
            with pytest.raises(NotFound):
                await store.resume_run(owner, thread_id, asked, YES)
        assert await look_at(store, thread.thread_id) == before

    @pytest.mark.parametrize("by", ["finish", "claim", "start"])
    async def test_a_later_run_leaves_the_question_behind(self, store: Store, by: str) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        run_id = active.run.run_id
        if by != "start":
            await store.start_run(ALICE, new_run(thread.thread_id))
        later = await store.finish_run(active, asking("q1"), [], [], claim_next=by == "finish")
        if by == "claim":
            later = await claim(store, thread.thread_id)
        elif by == "start":
            later = await start(store, thread.thread_id)
        assert later is not None
        found = await store.get_thread(ALICE, thread.thread_id)
        assert (found.status, found.interrupts) == ("busy", [])
        assert (await store.list_interrupts(ALICE, limit=9)).data == []
        with pytest.raises(NotInterrupted):
            await resume(store, thread.thread_id, run_id, YES)
        await store.finish_run(later, SUCCESS, [], [])
        with pytest.raises(NotInterrupted):
            await resume(store, thread.thread_id, run_id, YES)
        assert (await store.get_run(ALICE, thread.thread_id, run_id)).status == "interrupted"
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "idle"

    async def test_a_message_that_only_waits_leaves_the_question_open(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "one")
        waiting = (await store.start_run(ALICE, new_run(thread.thread_id, "two"))).run
        await store.finish_run(active, asking("q1"), [], [], claim_next=False)
        assert (await store.get_thread(ALICE, thread.thread_id)).status == "busy"
        assert len((await store.list_interrupts(ALICE, limit=9)).data) == 1
        resumed = await resume(store, thread.thread_id, active.run.run_id, YES)
        assert await store.claim_next() is None
        following = await store.finish_run(resumed, SUCCESS, [answer(resumed, "1")], [])
        assert following is not None
        assert following.run.run_id == waiting.run_id
        assert await list_contents(store, thread.thread_id) == ["one", "1", "two"]

    # The list

    async def test_questions_are_listed_newest_first_page_by_page(self, store: Store) -> None:
        threads = [await make_thread(store) for _ in range(3)]
        running = [await start(store, thread.thread_id) for thread in threads]
        for active in reversed(running):
            await store.finish_run(active, asking("q1"), [], [])
        listed: list[str] = []
        cursor = None
        for _ in threads:
            page = await store.list_interrupts(ALICE, limit=1, cursor=cursor)
            listed.extend(one.run_id for one in page.data)
            cursor = page.next_cursor
        assert listed == [active.run.run_id for active in running]
        assert cursor is None

    async def test_a_page_of_questions_ends_before_the_newer_ones(self, store: Store) -> None:
        old, new = await make_thread(store), await make_thread(store)
        await ask(store, old.thread_id, "q1")
        await ask(store, new.thread_id, "q1")
        page = await store.list_interrupts(ALICE, limit=1)
        await ask(store, (await make_thread(store)).thread_id, "q1")
        rest = await store.list_interrupts(ALICE, limit=9, cursor=page.next_cursor)
        assert [one.thread_id for one in rest.data] == [old.thread_id]

    async def test_everybody_sees_his_own_questions_only(self, store: Store) -> None:
        await ask(store, (await make_thread(store)).thread_id, "q1")
        assert (await store.list_interrupts(BOB, limit=9)).data == []

    async def test_only_a_cursor_of_his_own_questions_is_taken(self, store: Store) -> None:
        for _ in range(2):
            await ask(store, (await make_thread(store)).thread_id, "q1")
        mine = (await store.list_interrupts(ALICE, limit=1)).next_cursor
        threads = (await store.list_threads(ALICE, limit=1)).next_cursor
        assert mine is not None
        for owner, cursor in ((BOB, mine), (ALICE, threads), (ALICE, "x"), (ALICE, "")):
            with pytest.raises(InvalidRequest):
                await store.list_interrupts(owner, limit=1, cursor=cursor)

    # For those who may answer all

    async def test_the_questions_of_all_owners_are_listed_with_their_owners(
        self, store: Store
    ) -> None:
        asked = []
        for owner in (ALICE, BOB, ALICE):
            thread = await make_thread(store, owner)
            started = await store.start_run(owner, new_run(thread.thread_id))
            assert started.active is not None
            await store.finish_run(started.active, asking("q1"), [], [])
            asked.append((owner, thread.thread_id, started.run.run_id))
        hidden = await make_thread(store)
        await ask(store, hidden.thread_id, "q1")
        await store.hide_thread(ALICE, hidden.thread_id)
        first = await store.list_all_interrupts(limit=2)
        rest = await store.list_all_interrupts(limit=2, cursor=first.next_cursor)
        listed = [(one.owner, one.thread_id, one.run_id) for one in (*first.data, *rest.data)]
        assert listed == asked[::-1]
        assert rest.next_cursor is None
        assert first.data[0].interrupts == asking("q1").interrupts
        mine = (await store.list_interrupts(ALICE, limit=1)).next_cursor
        for call in (
            store.list_all_interrupts(limit=1, cursor=mine),
            store.list_interrupts(ALICE, limit=1, cursor=first.next_cursor),
        ):
            with pytest.raises(InvalidRequest):
                await call

    async def test_only_a_run_that_can_be_answered_has_somebody_who_asks(
        self, store: Store
    ) -> None:
        thread, other = await make_thread(store), await make_thread(store)
        run_id = (await ask(store, thread.thread_id, "q1")).run.run_id
        assert await store.find_asker(thread.thread_id, run_id) == ALICE
        assert await store.find_asker(other.thread_id, run_id) is None
        assert await store.find_asker(thread.thread_id, make_id()) is None
        await resume(store, thread.thread_id, run_id, YES)
        assert await store.find_asker(thread.thread_id, run_id) is None
