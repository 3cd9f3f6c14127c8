"""What every Store has to get right about threads."""
# ruff: noqa: S101 - asserting is what a suite is for

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentflow_server.errors import (
    IdempotencyMismatch,
    IdTaken,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
    ThreadBusy,
)
from agentflow_server.interfaces import Store
from agentflow_server.models import ANONYMOUS, Idempotency
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    FAILURE,
    claim,
    make_id,
    make_thread,
    new_run,
    start,
    take_turn,
)

KEY = Idempotency(key="k1", route="POST /threads", digest="d1")


class ThreadTests:
    async def test_a_new_store_answers_a_ping_and_is_empty(self, store: Store) -> None:
        await store.ping()
        assert (await store.list_threads(ALICE, limit=1)).data == []

    async def test_a_new_thread_is_idle_and_unnamed(self, store: Store) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        thread = await make_thread(store, topic="weather")
        assert (thread.status, thread.name, thread.metadata) == ("idle", None, {"topic": "weather"})
        assert thread.created_at == thread.updated_at
        assert before < thread.created_at < datetime.now(UTC) + timedelta(seconds=1)
        assert await store.get_thread(ALICE, thread.thread_id) == thread

    @pytest.mark.parametrize("owner", [ALICE, BOB])
    async def test_a_taken_id_is_refused_whoever_has_it(self, store: Store, owner: str) -> None:
        thread = await make_thread(store)
        with pytest.raises(IdTaken):
            await store.create_thread(owner, thread.thread_id, metadata={})

    async def test_reuse_returns_ones_own_thread_unchanged(self, store: Store) -> None:
        thread = await make_thread(store, a=1)
        again = await store.create_thread(ALICE, thread.thread_id, metadata={"b": 2}, reuse=True)
        assert again == thread

    async def test_reuse_does_not_give_away_a_strangers_thread(self, store: Store) -> None:
        thread = await make_thread(store)
        with pytest.raises(IdTaken):
            await store.create_thread(BOB, thread.thread_id, metadata={}, reuse=True)

    async def test_anonymous_threads_belong_to_nobody_with_a_name(self, store: Store) -> None:
        thread = await make_thread(store, ANONYMOUS)
        with pytest.raises(NotFound):
            await store.get_thread(ALICE, thread.thread_id)
        assert await store.get_thread(ANONYMOUS, thread.thread_id) == thread

    # Idempotency

    async def test_a_repeated_key_returns_the_thread_it_made(self, store: Store) -> None:
        first = await store.create_thread(ALICE, make_id(), metadata={}, idempotency=KEY)
        changed = await store.update_thread(ALICE, first.thread_id, name="Trip")
        again = await store.create_thread(ALICE, make_id(), metadata={}, idempotency=KEY)
        assert again == changed
        assert len((await store.list_threads(ALICE, limit=10)).data) == 1

    async def test_a_key_with_another_digest_is_a_mismatch(self, store: Store) -> None:
        await store.create_thread(ALICE, make_id(), metadata={}, idempotency=KEY)
        other = Idempotency(KEY.key, KEY.route, "d2")
        with pytest.raises(IdempotencyMismatch):
            await store.create_thread(ALICE, make_id(), metadata={}, idempotency=other)

    async def test_a_key_counts_per_owner_and_route(self, store: Store) -> None:
        other_route = Idempotency(KEY.key, "POST /other", KEY.digest)
        made = [
            await store.create_thread(ALICE, make_id(), metadata={}, idempotency=KEY),
            await store.create_thread(BOB, make_id(), metadata={}, idempotency=KEY),
            await store.create_thread(ALICE, make_id(), metadata={}, idempotency=other_route),
        ]
        assert len({thread.thread_id for thread in made}) == 3

    async def test_a_refused_request_leaves_no_key_behind(self, store: Store) -> None:
        taken = await make_thread(store)
        with pytest.raises(IdTaken):
            await store.create_thread(ALICE, taken.thread_id, metadata={}, idempotency=KEY)
        fresh = make_id()
        made = await store.create_thread(ALICE, fresh, metadata={}, idempotency=KEY)
        assert made.thread_id == fresh

    async def test_a_key_goes_with_its_thread(self, store: Store) -> None:
        first = await store.create_thread(ALICE, make_id(), metadata={}, idempotency=KEY)
        await store.hide_thread(ALICE, first.thread_id)
        second = await store.create_thread(ALICE, make_id(), metadata={}, idempotency=KEY)
        assert second.thread_id != first.thread_id

    # Listing

    async def test_threads_are_listed_newest_first_page_by_page(self, store: Store) -> None:
        made = [await make_thread(store) for _ in range(5)]
        listed, cursor = [], None
        for expected in (2, 2, 1):
            page = await store.list_threads(ALICE, limit=2, cursor=cursor)
            assert len(page.data) == expected
            listed.extend(page.data)
            cursor = page.next_cursor
        assert cursor is None
        order = sorted(made, key=lambda thread: (thread.created_at, thread.thread_id), reverse=True)
        assert listed == order

    async def test_a_full_last_page_has_no_cursor(self, store: Store) -> None:
        for _ in range(2):
            await make_thread(store)
        assert (await store.list_threads(ALICE, limit=2)).next_cursor is None

    async def test_threads_are_selected_by_status(self, store: Store) -> None:
        idle, busy = await make_thread(store), await make_thread(store)
        await start(store, busy.thread_id)
        for status, thread in (("idle", idle), ("busy", busy)):
            page = await store.list_threads(ALICE, limit=9, status=status)  # type: ignore[arg-type]  # one of the literals
            assert [found.thread_id for found in page.data] == [thread.thread_id]

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ({"s": "x"}, True),
            ({"s": "X"}, False),
            ({"s": ""}, False),
            ({"n": 1}, True),
            ({"n": 1.0}, True),
            ({"n": True}, False),
            ({"n": "1"}, False),
            ({"f": 0.5}, True),
            ({"big": 99999999999999999999}, True),
            ({"big": 1}, False),
            ({"t": True}, True),
            ({"t": 1}, False),
            ({"t": False}, False),
            ({"no": False}, True),
            ({"no": None}, False),
            ({"null": None}, True),
            ({"absent": None}, False),
            ({"o": {"b": [1, {"c": None}], "a": 1}}, True),
            ({"o": {"a": 1}}, False),
            ({"o": {"a": True, "b": [1, {"c": None}]}}, False),
            ({"l": [1, "two"]}, True),
            ({"l": ["two", 1]}, False),
            ({"l": [1]}, False),
            ({'we"ird.$[0] ключ\\': "yes"}, True),
            ({"s": "x", "n": 1, "l": [1, "two"]}, True),
            ({"s": "x", "n": 2}, False),
        ],
    )
    async def test_metadata_selects_by_whole_members(
        self, store: Store, wanted: dict[str, Any], found: bool
    ) -> None:
        metadata: dict[str, Any] = {
            "s": "x",
            "n": 1,
            "f": 0.5,
            "big": 99999999999999999999,
            "t": True,
            "no": False,
            "null": None,
            "o": {"a": 1, "b": [1, {"c": None}]},
            "l": [1, "two"],
            'we"ird.$[0] ключ\\': "yes",
        }
        await make_thread(store, **metadata)
        page = await store.list_threads(ALICE, limit=9, metadata=wanted)
        assert bool(page.data) is found

    async def test_pages_of_a_selection_skip_nothing(self, store: Store) -> None:
        for n in range(9):
            await make_thread(store, tags=["odd" if n % 2 else "even"], n=n)
        found: list[int] = []
        cursor = None
        for _ in range(3):
            page = await store.list_threads(
                ALICE, limit=2, cursor=cursor, metadata={"tags": ["even"]}
            )
            found.extend(thread.metadata["n"] for thread in page.data)
            cursor = page.next_cursor
        assert (sorted(found), cursor) == ([0, 2, 4, 6, 8], None)

    @pytest.mark.parametrize(
        "cursor", ["", "x", "AAAA", "é" * 9, "bnVsbA", "W10", "A" * 5000, "\0", "WzEsMiwzXQ", "=="]
    )
    async def test_garbage_is_no_cursor(self, store: Store, cursor: str) -> None:
        thread = await make_thread(store)
        listings = (
            store.list_threads(ALICE, limit=1, cursor=cursor),
            store.list_messages(ALICE, thread.thread_id, limit=1, cursor=cursor),
            store.list_runs(ALICE, thread.thread_id, limit=1, cursor=cursor),
        )
        for listing in listings:
            with pytest.raises(InvalidRequest) as caught:
                await listing
            assert not cursor or cursor not in str(caught.value)

    async def test_a_cursor_belongs_to_one_list(self, store: Store) -> None:
        one, two = await make_thread(store), await make_thread(store)
        for _ in range(2):
            await take_turn(store, one.thread_id, "Hello", "Hi")
        threads = (await store.list_threads(ALICE, limit=1)).next_cursor
        messages = (await store.list_messages(ALICE, one.thread_id, limit=1)).next_cursor
        runs = (await store.list_runs(ALICE, one.thread_id, limit=1)).next_cursor
        assert threads
        assert messages
        assert runs
        await make_thread(store, BOB)
        misused = (
            store.list_threads(BOB, limit=1, cursor=threads),
            store.list_threads(ALICE, limit=1, cursor=messages),
            store.list_messages(ALICE, one.thread_id, limit=1, cursor=runs),
            store.list_messages(ALICE, two.thread_id, limit=1, cursor=messages),
            store.list_runs(ALICE, two.thread_id, limit=1, cursor=runs),
        )
        for listing in misused:
            with pytest.raises(InvalidRequest):
                await listing

    # Changing

    async def test_metadata_is_merged_and_null_removes(self, store: Store) -> None:
        thread = await make_thread(store, a=1, b={"x": 1}, kept=None)
        changed = await store.update_thread(
            ALICE, thread.thread_id, metadata={"a": None, "b": {"y": 2}, "c": 3, "absent": None}
        )
        assert changed.metadata == {"b": {"y": 2}, "c": 3, "kept": None}
        assert changed.updated_at >= thread.updated_at
        assert await store.get_thread(ALICE, thread.thread_id) == changed

    async def test_a_name_is_set_without_touching_metadata(self, store: Store) -> None:
        thread = await make_thread(store, a=1)
        changed = await store.update_thread(ALICE, thread.thread_id, name="Trip to Rome")
        assert (changed.name, changed.metadata) == ("Trip to Rome", {"a": 1})
        again = await store.update_thread(ALICE, thread.thread_id, metadata={"b": 2})
        assert (again.name, again.metadata) == ("Trip to Rome", {"a": 1, "b": 2})

    async def test_naming_in_the_background_never_overwrites(self, store: Store) -> None:
        thread = await make_thread(store)
        for name in ("First", "Second"):
            await store.name_thread(thread.thread_id, name)
        assert (await store.get_thread(ALICE, thread.thread_id)).name == "First"
        await store.name_thread(make_id(), "nobody is there")

    # Deleting

    async def test_a_hidden_thread_is_gone_but_keeps_its_id(self, store: Store) -> None:
        thread = await make_thread(store)
        assert await store.hide_thread(ALICE, thread.thread_id) is None
        with pytest.raises(NotFound):
            await store.get_thread(ALICE, thread.thread_id)
        with pytest.raises(NotFound):
            await store.hide_thread(ALICE, thread.thread_id)
        with pytest.raises(NotFound):
            await store.start_run(ALICE, new_run(thread.thread_id))
        for reuse in (False, True):
            with pytest.raises(IdTaken):
                await store.create_thread(ALICE, thread.thread_id, metadata={}, reuse=reuse)
        assert (await store.list_threads(ALICE, limit=9)).data == []
        assert list(await store.list_hidden_threads()) == [(thread.thread_id, None)]

    async def test_purging_deletes_everything_and_frees_the_id(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.finish_run(active, FAILURE, [], [])
        assert await store.hide_thread(ALICE, thread.thread_id) == "echo"
        assert list(await store.list_hidden_threads(older_than=3600)) == []
        assert list(await store.list_hidden_threads()) == [(thread.thread_id, "echo")]
        for _ in range(2):
            await store.purge_thread(thread.thread_id)
        assert list(await store.list_hidden_threads()) == []
        assert list(await store.run_messages(active.run.run_id)) == []
        assert list(await store.list_events(active.run.run_id, after=0, limit=9)) == []
        again = await store.create_thread(ALICE, thread.thread_id, metadata={})
        assert (await store.list_runs(ALICE, again.thread_id, limit=9)).data == []

    async def test_only_a_hidden_thread_is_purged(self, store: Store) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "Hello", "Hi")
        await store.purge_thread(thread.thread_id)
        assert len((await store.list_messages(ALICE, thread.thread_id, limit=9)).data) == 2

    async def test_a_busy_thread_is_not_hidden(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.start_run(ALICE, new_run(thread.thread_id))
        for claim_next in (False, True):
            with pytest.raises(ThreadBusy):
                await store.hide_thread(ALICE, thread.thread_id)
            if claim_next is False:
                await store.finish_run(active, FAILURE, [], [], claim_next=claim_next)
        last = await claim(store, thread.thread_id)
        await store.finish_run(last, FAILURE, [], [])
        assert await store.hide_thread(ALICE, thread.thread_id) == "echo"

    # Opening and strangers

    async def test_a_closed_store_is_unavailable_until_it_is_opened_again(
        self, store: Store
    ) -> None:
        thread = await make_thread(store, a=1)
        await store.__aexit__(None, None, None)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        await store.__aenter__()
        assert await store.get_thread(ALICE, thread.thread_id) == thread

    async def test_a_stranger_finds_nothing(self, store: Store) -> None:
        thread = await make_thread(store)
        thread_id = thread.thread_id
        active = await start(store, thread_id)
        await store.finish_run(active, FAILURE, [], [])
        attempts = (
            store.get_thread(BOB, thread_id),
            store.update_thread(BOB, thread_id, name="mine now", metadata={"a": 1}),
            store.hide_thread(BOB, thread_id),
            store.start_run(BOB, new_run(thread_id)),
            store.get_run(BOB, thread_id, active.run.run_id),
            store.list_runs(BOB, thread_id, limit=9),
            store.list_messages(BOB, thread_id, limit=9),
        )
        for attempt in attempts:
            with pytest.raises(NotFound):
                await attempt
        assert (await store.list_threads(BOB, limit=9)).data == []
        after = await store.get_thread(ALICE, thread_id)
        assert (after.name, after.metadata) == (None, {})
        assert len((await store.list_messages(ALICE, thread_id, limit=9)).data) == 1
