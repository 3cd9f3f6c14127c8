"""What every OperatorStore that is a Store as well has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from uuid_utils import uuid7

from agentflow_server.errors import Conflict, InvalidRequest, NotFound, ThreadBusy
from agentflow_server.interfaces import OperatorStore, Store
from agentflow_server.models import (
    Answer,
    CopyPoint,
    OwnedRun,
    Run,
    RunError,
    RunOutcome,
    RunStatus,
    StartedRun,
    Stop,
)
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
    make_id,
    make_thread,
    new_run,
    resume,
    start,
    take_turn,
)

NOON = datetime(2100, 1, 1, 12, tzinfo=UTC)
TIMEOUT = RunOutcome("timeout", RunError(code="timeout", detail="The run took too long"))


async def send(
    store: Store, thread_id: str, content: Any = "Hello", owner: str = ALICE, **changes: Any
) -> StartedRun:
    """A run that waits; ids of runs are in the order of these calls."""
    new = new_run(thread_id, content, run_id=str(uuid7()), **changes)
    return await store.start_run(owner, new, claim=False)


async def fail(store: Store, thread_id: str, outcome: RunOutcome = FAILURE, **changes: Any) -> Run:
    """A turn of a free thread of Alice's that comes to nothing."""
    active = await start(store, thread_id, **changes)
    await store.finish_run(active, outcome, [], events(active, 1))
    return await store.get_run(ALICE, thread_id, active.run.run_id)


class OperatorStoreSuite:
    """Subclass it, give it your store, opened and empty, and run pytest."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def store(self) -> Store:
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def operators(self, store: Store) -> OperatorStore:
        assert isinstance(store, OperatorStore)
        return store

    # Finding

    async def test_a_run_is_found_with_its_owner(
        self, store: Store, operators: OperatorStore
    ) -> None:
        thread = await make_thread(store, BOB)
        sent = await send(store, thread.thread_id, owner=BOB, start_after=NOON)
        run = await store.get_run(BOB, thread.thread_id, sent.run.run_id)
        assert await operators.find_run(run.run_id) == (BOB, run)
        assert await operators.find_run(make_id()) is None

    async def test_runs_of_all_owners_are_listed_newest_first_page_by_page(
        self, store: Store, operators: OperatorStore
    ) -> None:
        threads = [(await make_thread(store, owner)).thread_id for owner in (ALICE, BOB)]
        sent = [
            OwnedRun(owner=owner, run=(await send(store, thread_id, owner=owner)).run)
            for _ in range(3)
            for owner, thread_id in zip((ALICE, BOB), threads, strict=True)
        ]
        listed: list[OwnedRun] = []
        cursor = None
        for expected in (4, 2):
            page = await operators.list_all_runs(limit=4, cursor=cursor)
            assert len(page.data) == expected
            listed.extend(page.data)
            cursor = page.next_cursor
        assert (listed, cursor) == (sent[::-1], None)

    async def _list(self, operators: OperatorStore, **selected: Any) -> Sequence[Any]:
        listed = (await operators.list_all_runs(limit=99, **selected)).data
        return [one.run.run_id for one in listed]

    async def test_a_list_has_what_was_selected(
        self, store: Store, operators: OperatorStore
    ) -> None:
        one, other = await make_thread(store), await make_thread(store)
        theirs = await make_thread(store, BOB)
        first = (await send(store, one.thread_id)).run.run_id
        await store.finish_run(await claim(store, one.thread_id), FAILURE, [], [])
        second = (await send(store, other.thread_id)).run.run_id
        await claim(store, other.thread_id)
        third = (await send(store, one.thread_id)).run.run_id
        later = (await send(store, one.thread_id, start_after=NOON)).run.run_id
        last = (await send(store, theirs.thread_id, owner=BOB)).run.run_id
        assert await self._list(operators) == [last, later, third, second, first]
        assert await self._list(operators, status="error") == [first]
        assert await self._list(operators, status="running") == [second]
        assert await self._list(operators, status="pending") == [last, later, third]
        assert await self._list(operators, status="success") == []
        assert await self._list(operators, owner=ALICE) == [later, third, second, first]
        assert await self._list(operators, thread_id=one.thread_id) == [later, third, first]
        assert await self._list(operators, owner=BOB, thread_id=one.thread_id) == []
        assert await self._list(operators, owner=ALICE, status="pending") == [later, third]

    async def test_old_ones_are_listed_alone(self, store: Store, operators: OperatorStore) -> None:
        thread = await make_thread(store)
        old, new = str(uuid7(999)), str(uuid7(1000))
        for run_id in (old, new):
            await store.start_run(ALICE, new_run(thread.thread_id, run_id=run_id), claim=False)
        for seconds, expected in ((999, []), (1000, [old]), (1001, [new, old])):
            before = datetime.fromtimestamp(seconds, UTC)
            assert await self._list(operators, before=before) == expected
            assert await self._list(operators, before=before, status="pending") == expected

    async def test_a_cursor_is_for_the_list_it_came_from(
        self, store: Store, operators: OperatorStore
    ) -> None:
        thread = await make_thread(store)
        for _ in range(2):
            await send(store, thread.thread_id)
        page = await operators.list_all_runs(limit=1, owner=ALICE)
        assert page.next_cursor is not None
        for cursor in (page.next_cursor, "nonsense"):
            with pytest.raises(InvalidRequest):
                await operators.list_all_runs(limit=1, cursor=cursor)

    async def test_what_is_being_deleted_is_not_there(
        self, store: Store, operators: OperatorStore
    ) -> None:
        thread = await make_thread(store)
        run = await fail(store, thread.thread_id)
        await store.hide_thread(ALICE, thread.thread_id)
        assert await operators.find_run(run.run_id) is None
        assert (await operators.list_all_runs(limit=9)).data == []
        with pytest.raises(NotFound):
            await operators.read_retry(run.run_id)

    # Trying again

    @pytest.mark.parametrize("outcome", [FAILURE, TIMEOUT, RunOutcome("cancelled")])
    async def test_a_failed_run_can_be_done_again(
        self, store: Store, operators: OperatorStore, outcome: RunOutcome
    ) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "before", "yes")
        asked = new_run(
            thread.thread_id,
            [{"type": "text", "text": "Hello"}],
            metadata={"a": 1},
            claims={"user_id": ALICE, "plan": "gold"},
            config={"model": "large"},
            webhook="https://hook.example/runs",
        )
        started = await store.start_run(ALICE, asked)
        assert started.active is not None
        await store.finish_run(started.active, outcome, [], events(started.active, 1))
        owner, new = await operators.read_retry(asked.run_id)
        assert new == replace(
            asked, run_id=new.run_id, message_id=new.message_id, on_busy=new.on_busy
        )
        assert {new.run_id, new.message_id}.isdisjoint({asked.run_id, asked.message_id})
        waiting = await store.start_run(owner, new, claim=False)
        active = await claim(store, thread.thread_id)
        assert active.run.run_id == waiting.run.run_id
        await store.finish_run(active, SUCCESS, [answer(active)], [])
        contents = await list_contents(store, thread.thread_id)
        assert contents == ["before", "yes", asked.content, asked.content, "Hi"]
        assert len(await store.list_events(asked.run_id, after=0, limit=9)) == 1

    async def test_a_run_that_was_stopped_in_the_line_can_be_done_again(
        self, store: Store, operators: OperatorStore
    ) -> None:
        thread = await make_thread(store)
        run_id = (await send(store, thread.thread_id)).run.run_id
        await store.stop_run(ALICE, thread.thread_id, run_id, "cancel")
        owner, new = await operators.read_retry(run_id)
        assert (owner, new.content) == (ALICE, "Hello")

    async def test_of_two_retries_one_starts(self, store: Store, operators: OperatorStore) -> None:
        thread = await make_thread(store)
        run = await fail(store, thread.thread_id)
        (_, one), (_, other) = [await operators.read_retry(run.run_id) for _ in range(2)]
        await store.start_run(ALICE, one, claim=False)
        with pytest.raises(ThreadBusy):
            await store.start_run(ALICE, other, claim=False)

    async def test_a_retry_after_the_events_are_gone(
        self, store: Store, operators: OperatorStore
    ) -> None:
        thread = await make_thread(store)
        run = await fail(store, thread.thread_id)
        assert await store.prune(events_before=NOON, limit=9) == 1
        assert (await operators.read_retry(run.run_id))[0] == ALICE

    @pytest.mark.parametrize("status", ["pending", "running", "success", "interrupted"])
    async def test_a_run_that_has_not_failed_is_not_done_again(
        self, store: Store, operators: OperatorStore, status: RunStatus
    ) -> None:
        thread = await make_thread(store)
        if status == "interrupted":
            run_id = (await ask(store, thread.thread_id, "q1")).run.run_id
        else:
            run_id = (await send(store, thread.thread_id)).run.run_id
        if status in ("running", "success"):
            active = await claim(store, thread.thread_id)
            if status == "success":
                await store.finish_run(active, SUCCESS, [], [])
        with pytest.raises(Conflict, match=status):
            await operators.read_retry(run_id)

    async def test_only_the_last_run_of_a_thread_is_done_again(
        self, store: Store, operators: OperatorStore
    ) -> None:
        thread = await make_thread(store)
        run = await fail(store, thread.thread_id)
        await send(store, thread.thread_id, start_after=NOON)
        await operators.read_retry(run.run_id)
        await send(store, thread.thread_id)
        with pytest.raises(Conflict, match="last"):
            await operators.read_retry(run.run_id)

    @pytest.mark.parametrize("how", get_args(Stop))
    async def test_a_message_that_was_rolled_back_is_not_brought_back(
        self, store: Store, operators: OperatorStore, how: Stop
    ) -> None:
        thread = await make_thread(store)
        run_id = (await send(store, thread.thread_id)).run.run_id
        await store.stop_run(ALICE, thread.thread_id, run_id, how)
        if how == "rollback":
            with pytest.raises(NotFound):
                await operators.read_retry(run_id)
        else:
            await operators.read_retry(run_id)
        with pytest.raises(NotFound):
            await operators.read_retry(make_id())

    @pytest.mark.parametrize("point", [None, "question", "everything"])
    async def test_a_copied_run_has_nobodys_claims_and_is_not_done_again(
        self, store: Store, operators: OperatorStore, point: Any
    ) -> None:
        thread = await make_thread(store)
        run = await fail(store, thread.thread_id)
        copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
        copied = copy.runs[run.run_id]
        at = None if point is None else CopyPoint(copied, point)
        await store.finish_copy(ALICE, copy, point=at)
        with pytest.raises(Conflict, match="copy"):
            await operators.read_retry(copied)
        await operators.read_retry(run.run_id)

    async def test_a_question_that_was_copied_and_then_failed_can_be_done_again(
        self, store: Store, operators: OperatorStore
    ) -> None:
        thread = await make_thread(store)
        asked = await start(store, thread.thread_id, claims={"user_id": ALICE})
        await store.finish_run(asked, asking("q1"), [], [])
        copy = await store.begin_copy(ALICE, thread.thread_id, make_id(), metadata={})
        await store.finish_copy(ALICE, copy)
        copied = copy.runs[asked.run.run_id]
        resumed = await resume(store, copy.thread_id, copied, Answer(value="yes"))
        await store.finish_run(resumed, FAILURE, [], [])
        _, new = await operators.read_retry(copied)
        assert (new.thread_id, new.claims) == (copy.thread_id, {"user_id": ALICE})

    # The database

    async def test_rows_are_counted(self, store: Store, operators: OperatorStore) -> None:
        statuses = [f"runs_{status}" for status in get_args(RunStatus)]
        nothing = dict.fromkeys(["threads", *statuses, "messages", "events"], 0)
        assert await operators.count_rows() == nothing
        thread, other = await make_thread(store), await make_thread(store, BOB)
        await fail(store, thread.thread_id)
        await take_turn(store, thread.thread_id, "Hello", "Hi")
        await store.start_run(BOB, new_run(other.thread_id))
        found = await operators.count_rows()
        runs = {"runs_error": 1, "runs_success": 1, "runs_running": 1}
        assert found == nothing | {"threads": 2, **runs, "messages": 4, "events": 1}
