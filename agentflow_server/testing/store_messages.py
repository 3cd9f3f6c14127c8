"""What every Store has to get right about messages."""
# ruff: noqa: S101 - asserting is what a suite is for

from datetime import timedelta

import pytest

from agentflow_server.errors import NotFound
from agentflow_server.interfaces import Store
from agentflow_server.models import Content, NewRun
from agentflow_server.testing.store_data import (
    ALICE,
    FAILURE,
    SUCCESS,
    answer,
    make_id,
    make_thread,
    new_run,
    start,
    take_turn,
)


class MessageTests:
    @pytest.mark.parametrize(
        "content",
        [
            "",
            "Grüße, 世界 🌍\n\t\"quoted\" 'too' \\",
            "x" * 200_000,
            [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": "u"}}],
            [],
        ],
    )
    async def test_a_message_comes_back_as_it_was(self, store: Store, content: Content) -> None:
        thread = await make_thread(store)
        metadata = {"nested": {"list": [1, 2.5, None, True]}, "ключ": "значение"}
        active = await start(store, thread.thread_id, content, metadata=metadata)
        reply = answer(active, content).model_copy(update={"metadata": metadata})
        await store.finish_run(active, SUCCESS, [reply], [])
        stored = (await store.list_messages(ALICE, thread.thread_id, limit=9)).data
        assert stored == [active.message, reply]
        assert stored[0].created_at.utcoffset() == timedelta(0)

    async def test_messages_are_listed_oldest_first_page_by_page(self, store: Store) -> None:
        thread = await make_thread(store)
        for n in range(3):
            await take_turn(store, thread.thread_id, f"question {n}", f"answer {n}")
        listed: list[Content] = []
        cursor = None
        for expected in (4, 2):
            page = await store.list_messages(ALICE, thread.thread_id, limit=4, cursor=cursor)
            assert len(page.data) == expected
            listed.extend(message.content for message in page.data)
            cursor = page.next_cursor
        assert cursor is None
        assert listed == [f"{kind} {n}" for n in range(3) for kind in ("question", "answer")]

    async def test_a_waiting_question_is_listed_after_the_answers_before_it(
        self, store: Store
    ) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "one")
        await store.start_run(ALICE, new_run(thread.thread_id, "two"))
        await store.finish_run(active, SUCCESS, [answer(active, "1a"), answer(active, "1b")], [])
        page = await store.list_messages(ALICE, thread.thread_id, limit=9)
        assert [message.content for message in page.data] == ["one", "1a", "1b", "two"]

    async def test_messages_of_an_unknown_thread_are_not_found(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.list_messages(ALICE, make_id(), limit=1)

    async def test_the_messages_of_one_run_start_with_its_question(self, store: Store) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "other", "other")
        active = await start(store, thread.thread_id, "question")
        reply = answer(active, "answer")
        await store.finish_run(active, SUCCESS, [reply], [])
        assert list(await store.run_messages(active.run.run_id)) == [active.message, reply]
        assert list(await store.run_messages(make_id())) == []

    async def test_history_ends_with_the_message_to_answer(self, store: Store) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "one", "1")
        await take_turn(store, thread.thread_id, "two", "2")
        active = await start(store, thread.thread_id, "three")
        await store.start_run(ALICE, new_run(thread.thread_id, "not yet"))
        history = await store.history(active, limit=None)
        assert [message.content for message in history] == ["one", "1", "two", "2", "three"]
        assert history[-1] == active.message

    @pytest.mark.parametrize(
        ("limit", "kept"), [(1, ["two"]), (2, ["1", "two"]), (9, ["one", "1", "two"])]
    )
    async def test_history_is_cut_at_the_front(
        self, store: Store, limit: int, kept: list[str]
    ) -> None:
        thread = await make_thread(store)
        await take_turn(store, thread.thread_id, "one", "1")
        active = await start(store, thread.thread_id, "two")
        history = await store.history(active, limit=limit)
        assert [message.content for message in history] == kept

    async def test_history_keeps_the_question_of_a_failed_turn(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id, "one")
        await store.finish_run(active, FAILURE, [], [])
        active = await start(store, thread.thread_id, "two")
        history = await store.history(active, limit=None)
        assert [message.content for message in history] == ["one", "two"]

    async def test_a_claimed_run_carries_what_was_asked(self, store: Store) -> None:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        new: NewRun = new_run(
            thread.thread_id,
            [{"type": "text", "text": "later"}],
            metadata={"m": 1},
            claims={"user_id": ALICE, "roles": ["admin"]},
            config={"recursion_limit": 5},
        )
        waiting = await store.start_run(ALICE, new)
        claimed = await store.finish_run(active, SUCCESS, [], [])
        assert claimed is not None
        assert claimed.message == waiting.message
        assert (claimed.owner, claimed.claims, claimed.config) == (ALICE, new.claims, new.config)
        assert claimed.last_seq == 0
