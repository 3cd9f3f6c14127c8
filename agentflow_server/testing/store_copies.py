"""What every Store has to get right about copies of threads."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agentflow_server.errors import (
    IdempotencyMismatch,
    IdTaken,
    NotFound,
    StoreUnavailable,
    ThreadBusy,
)
from agentflow_server.interfaces import Store
from agentflow_server.models import (
    Answer,
    CopyPoint,
    Idempotency,
    RunOutcome,
    Thread,
    ThreadCopy,
)
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    FAILURE,
    SUCCESS,
    answer,
    ask,
    asking,
    events,
    list_contents,
    look_at,
    make_id,
    make_thread,
    new_run,
    resume,
    start,
    take_turn,
)

KEY = Idempotency(key="k1", route="POST /threads/t/copy", digest="d1")


async def begin(store: Store, thread_id: str, **options: Any) -> ThreadCopy:
    options = {"metadata": {}, **options}
    return await store.begin_copy(ALICE, thread_id, make_id(), **options)


async def copied(store: Store, thread_id: str, **options: Any) -> Thread:
    return await store.finish_copy(ALICE, await begin(store, thread_id), **options)


async def list_runs(store: Store, thread_id: str) -> list[Any]:
    """Oldest first."""
    return (await store.list_runs(ALICE, thread_id, limit=99)).data[::-1]


class CopyTests:
    # What is copied

    async def test_a_copy_is_the_conversation_under_new_ids(self, store: Store) -> None:
        source = (await make_thread(store, topic="tea")).thread_id
        active = await start(store, source, [{"type": "text", "text": "hi"}], metadata={"m": 1})
        await store.finish_run(active, SUCCESS, [answer(active), answer(active, "?")], [])
        failing = await start(store, source, "two")
        await store.finish_run(failing, FAILURE, [], [])
        await store.name_thread(source, "Tea")
        before = await look_at(store, source)
        copy = await copied(store, source)
        assert (copy.name, copy.metadata, copy.status) == ("Tea", {"topic": "tea"}, "error")
        assert await store.get_thread(ALICE, copy.thread_id) == copy
        theirs, ours = [await list_runs(store, one) for one in (source, copy.thread_id)]
        names = dict(zip((run.run_id for run in theirs), (run.run_id for run in ours), strict=True))
        for old, new in zip(theirs, ours, strict=True):
            changes = {"run_id": names[old.run_id], "thread_id": copy.thread_id}
            assert new == old.model_copy(update=changes)
        messages = (await store.list_messages(ALICE, copy.thread_id, limit=99)).data
        originals = before[4]
        for old, new in zip(originals, messages, strict=True):
            changes = {"run_id": names[old.run_id], "thread_id": copy.thread_id}
            assert new == old.model_copy(update={**changes, "message_id": new.message_id})
        ids = {m.message_id for m in (*originals, *messages)}
        assert len(ids) == 2 * len(messages), "message ids are new"
        assert await look_at(store, source) == before

    async def test_events_and_claims_stay_behind(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        active = await start(store, source)
        await store.finish_run(active, SUCCESS, [], events(active, 1, 2))
        copy = await copied(store, source)
        (run,) = await list_runs(store, copy.thread_id)
        assert list(await store.list_events(run.run_id, after=0, limit=9)) == []

    async def test_a_thread_in_which_nothing_was_said_can_be_copied(self, store: Store) -> None:
        copy = await copied(store, (await make_thread(store)).thread_id)
        assert copy.status == "idle"
        assert (await start(store, copy.thread_id)).turn == 1

    async def test_more_turns_than_are_copied_at_once(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        for n in range(205):
            await take_turn(store, source, f"{n}?", f"{n}!")
        copy = await copied(store, source)
        following = await start(store, copy.thread_id, "and?")
        history = await store.history(following, limit=None)
        expected = [f"{n}{sign}" for n in range(205) for sign in "?!"]
        assert [message.content for message in history] == [*expected, "and?"]

    async def test_metadata_is_merged_and_a_null_removes(self, store: Store) -> None:
        source = (await make_thread(store, a=1, b={"c": 2}, n=None)).thread_id
        begun = await begin(store, source, metadata={"a": None, "b": 3, "d": [None]})
        copy = await store.finish_copy(ALICE, begun)
        assert copy.metadata == {"b": 3, "d": [None], "n": None}

    async def test_both_go_on_each_on_its_own(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        copy = (await copied(store, source)).thread_id
        await take_turn(store, source, "two", "2")
        await take_turn(store, copy, "three", "3")
        assert await list_contents(store, source) == ["one", "1", "two", "2"]
        assert await list_contents(store, copy) == ["one", "1", "three", "3"]
        await store.hide_thread(ALICE, source)
        await store.purge_thread(source)
        assert await list_contents(store, copy) == ["one", "1", "three", "3"]

    async def test_the_copy_has_the_agent_of_the_thread(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        begun = await begin(store, source)
        assert begun.agent == "echo"
        copy = await store.finish_copy(ALICE, begun)
        new = new_run(copy.thread_id, agent="other", agent_is_default=True)
        assert (await store.start_run(ALICE, new)).run.agent == "echo"

    # Turns that have not ended

    async def test_only_turns_that_have_ended_are_copied(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        await start(store, source, "two")
        await store.start_run(ALICE, new_run(source, "three"))
        begun = await begin(store, source)
        assert begun.busy
        copy = await store.finish_copy(ALICE, begun)
        assert (copy.status, await list_contents(store, copy.thread_id)) == ("idle", ["one", "1"])
        assert (await start(store, copy.thread_id)).turn == 2

    async def test_what_has_to_be_unchanged_is(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        begun = await begin(store, source)
        assert not begun.busy
        await store.update_thread(ALICE, source, name="new", metadata={"new": 1})
        assert (await store.finish_copy(ALICE, begun, unchanged=True)).name == "new"

    @pytest.mark.parametrize("ends", [False, True])
    async def test_a_turn_that_begins_meanwhile_is_noticed(self, store: Store, ends: bool) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        begun, other = await begin(store, source), await begin(store, source)
        active = await start(store, source, "two")
        if ends:
            await store.finish_run(active, SUCCESS, [], [])
        with pytest.raises(ThreadBusy):
            await store.finish_copy(ALICE, begun, unchanged=True)
        with pytest.raises(NotFound):
            await store.get_thread(ALICE, begun.thread_id)
        copy = await store.finish_copy(ALICE, other)
        assert await list_contents(store, copy.thread_id) == ["one", "1"]

    @pytest.mark.parametrize("asks_again", [False, True])
    async def test_an_answer_that_comes_meanwhile_is_noticed(
        self, store: Store, asks_again: bool
    ) -> None:
        source = (await make_thread(store)).thread_id
        active = await ask(store, source, "q1")
        begun, other = await begin(store, source), await begin(store, source)
        resumed = await resume(store, source, active.run.run_id, Answer(value=1))
        early = await store.finish_copy(ALICE, other)
        assert (early.status, await list_runs(store, early.thread_id)) == ("idle", [])
        await store.finish_run(resumed, asking("q1") if asks_again else SUCCESS, [], [])
        with pytest.raises(ThreadBusy):
            await store.finish_copy(ALICE, begun, unchanged=True)

    # Questions

    async def test_a_question_can_be_answered_in_both(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        config = {"tags": ["a"]}
        active = await start(store, source, "q?", config=config)
        await store.finish_run(active, asking("q0"), [], [])
        active = await resume(store, source, active.run.run_id, Answer(value=0))
        await store.finish_run(active, asking("q1"), [answer(active, "hm")], events(active, 1))
        copy = await copied(store, source)
        assert copy.status == "interrupted"
        assert copy.interrupts == list(asking("q1").interrupts)
        pending = (await store.list_interrupts(ALICE, limit=9)).data
        assert {one.thread_id for one in pending} == {source, copy.thread_id}
        (run,) = await list_runs(store, copy.thread_id)
        resumed = await resume(store, copy.thread_id, run.run_id, Answer(value=1))
        assert (resumed.claims, resumed.config) == (active.claims, config)
        assert (list(resumed.answers), resumed.last_seq) == ([{"q0": 0}, {"q1": 1}], 0)
        await store.finish_run(resumed, SUCCESS, [answer(resumed, "ok")], [])
        assert await list_contents(store, copy.thread_id) == ["q?", "hm", "ok"]
        assert (await store.get_thread(ALICE, source)).status == "interrupted"
        await resume(store, source, active.run.run_id, Answer(value=2))

    async def test_an_old_question_stays_closed(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await ask(store, source, "q1")
        await take_turn(store, source, "never mind", "ok")
        copy = await copied(store, source)
        assert (copy.status, copy.interrupts) == ("idle", [])
        assert (await store.list_interrupts(ALICE, limit=9)).data == []

    # Copies of a part

    @pytest.mark.parametrize(
        ("part", "contents", "statuses"),
        [
            ("nothing", ["one", "1"], ["success"]),
            ("question", ["one", "1", "two"], ["success", "cancelled"]),
            ("everything", ["one", "1", "two", "2"], ["success", "error"]),
        ],
    )
    async def test_a_copy_goes_as_far_as_it_is_told(
        self, store: Store, part: Any, contents: list[str], statuses: list[str]
    ) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        active = await start(store, source, "two")
        outcome = RunOutcome("error", FAILURE.error)
        await store.finish_run(active, outcome, [answer(active, "2")], [])
        await take_turn(store, source, "three", "3")
        begun = await begin(store, source)
        point = CopyPoint(begun.runs[active.run.run_id], part)
        copy = (await store.finish_copy(ALICE, begun, point=point)).thread_id
        assert await list_contents(store, copy) == contents
        runs = await list_runs(store, copy)
        assert [run.status for run in runs] == statuses
        assert all((run.error is None) == (run.status != "error") for run in runs)
        assert (await start(store, copy)).turn == len(statuses) + 1

    @pytest.mark.parametrize("part", ["question", "everything"])
    async def test_a_part_asks_nothing(self, store: Store, part: Any) -> None:
        source = (await make_thread(store)).thread_id
        active = await ask(store, source, "q1")
        begun = await begin(store, source)
        point = CopyPoint(begun.runs[active.run.run_id], part)
        copy = await store.finish_copy(ALICE, begun, point=point)
        assert (copy.status, copy.interrupts) == ("idle", [])
        assert len((await store.list_interrupts(ALICE, limit=9)).data) == 1

    async def test_a_run_of_another_thread_is_no_point(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        active = await start(store, source)
        await store.finish_run(active, SUCCESS, [], [])
        begun = await begin(store, source)
        for run_id in (active.run.run_id, make_id()):
            with pytest.raises(NotFound):
                await store.finish_copy(ALICE, begun, point=CopyPoint(run_id, "everything"))

    # Who, and under which id

    async def test_a_stranger_copies_nothing(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        for thread_id in (source, make_id()):
            with pytest.raises(NotFound):
                await store.begin_copy(BOB, thread_id, make_id(), metadata={})
        assert list(await store.list_hidden_threads()) == []

    async def test_an_id_that_is_taken_is_refused(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        begun = await begin(store, source)
        others = (await make_thread(store, BOB)).thread_id
        for taken in (source, begun.thread_id, others):
            with pytest.raises(IdTaken):
                await store.begin_copy(ALICE, source, taken, metadata={})

    # Unfinished copies

    async def test_nobody_finds_a_copy_before_it_is_complete(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await ask(store, source, "q1")
        begun = await begin(store, source)
        with pytest.raises(NotFound):
            await store.get_thread(ALICE, begun.thread_id)
        with pytest.raises(NotFound):
            await store.start_run(ALICE, new_run(begun.thread_id))
        with pytest.raises(NotFound):
            await store.hide_thread(ALICE, begun.thread_id)
        page = await store.list_threads(ALICE, limit=9)
        assert [thread.thread_id for thread in page.data] == [source]

    async def test_what_a_crash_leaves_is_found_and_can_be_purged(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        begun = await begin(store, source)
        assert list(await store.list_hidden_threads()) == [(begun.thread_id, "echo")]
        await store.purge_thread(begun.thread_id)
        assert list(await store.list_hidden_threads()) == []
        again = await store.begin_copy(ALICE, source, begun.thread_id, metadata={})
        await store.finish_copy(ALICE, again)
        assert await list_contents(store, begun.thread_id) == ["one", "1"]

    async def test_a_copy_that_somebody_is_at_is_left_alone(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        begun = await begin(store, source)
        assert list(await store.list_hidden_threads(older_than=3600)) == []
        await store.finish_copy(ALICE, begun)
        assert await list_contents(store, begun.thread_id) == ["one", "1"]

    @pytest.mark.parametrize("purged", [False, True])
    @pytest.mark.parametrize("turns", [0, 1])
    async def test_a_copy_that_somebody_deletes_cannot_be_finished(
        self, store: Store, purged: bool, turns: int
    ) -> None:
        source = (await make_thread(store)).thread_id
        for _ in range(turns):
            await take_turn(store, source, "one", "1")
        begun = await begin(store, source)
        await store.list_hidden_threads()
        if purged:
            await store.purge_thread(begun.thread_id)
        with pytest.raises(StoreUnavailable):
            await store.finish_copy(ALICE, begun)
        with pytest.raises(NotFound):
            await store.get_thread(ALICE, begun.thread_id)

    async def test_a_source_that_is_deleted_meanwhile_has_no_copy(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        begun = await begin(store, source)
        await store.hide_thread(ALICE, source)
        with pytest.raises(NotFound):
            await store.finish_copy(ALICE, begun)
        await store.purge_thread(source)
        with pytest.raises(NotFound):
            await store.finish_copy(ALICE, begun)

    # Retries

    async def test_a_key_makes_one_copy(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        begun = await begin(store, source, idempotency=KEY)
        copy = await store.finish_copy(ALICE, begun, idempotency=KEY)
        again = await begin(store, source, idempotency=KEY)
        assert (again.replayed, again.thread_id) == (True, copy.thread_id)
        assert list(await store.list_hidden_threads()) == []
        with pytest.raises(IdempotencyMismatch):
            await begin(store, source, idempotency=replace(KEY, digest="d2"))

    async def test_of_two_with_one_key_one_is_revealed(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        await take_turn(store, source, "one", "1")
        begun = [await begin(store, source, idempotency=KEY) for _ in range(2)]
        made = await asyncio.gather(
            *(store.finish_copy(ALICE, one, idempotency=KEY) for one in begun)
        )
        assert made[0] == made[1]
        (left,) = {one.thread_id for one in begun} - {made[0].thread_id}
        assert [one for one, _ in await store.list_hidden_threads()] == [left]

    async def test_a_key_is_not_used_up_by_a_copy_that_failed(self, store: Store) -> None:
        source = (await make_thread(store)).thread_id
        begun = await begin(store, source, idempotency=KEY)
        await store.purge_thread(begun.thread_id)
        again = await begin(store, source, idempotency=KEY)
        assert not again.replayed
