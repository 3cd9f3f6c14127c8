"""The statements behind long lists use their index, and times survive the way there and back."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_server.errors import InvalidRequest
from agentflow_server.stores import (
    sqlite_delays,
    sqlite_messages,
    sqlite_pruning,
    sqlite_resuming,
    sqlite_run_lists,
    sqlite_runs,
    sqlite_stopping,
)
from agentflow_server.stores.cursors import decode_cursor, encode_cursor
from agentflow_server.stores.operators import Selection
from agentflow_server.stores.rows import to_datetime, to_microseconds, to_text
from agentflow_server.stores.rules import MAX_FILTERS
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.stores.sqlite_threads import same_json, select_threads
from agentflow_server.testing.store_data import make_thread, start, take_turn

PLACE = encode_cursor("threads:alice", 1, "t")


async def explain(store: SqliteStore, sql: str, parameters: Sequence[Any]) -> str:
    def read(connection: sqlite3.Connection) -> list[Any]:
        return connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()

    return "; ".join(row[3] for row in await store.read(read))


@pytest.mark.parametrize("cursor", [None, PLACE])
@pytest.mark.parametrize("status", [None, "idle"])
@pytest.mark.parametrize("metadata", [None, {"a": 1, "b": {"c": 2}}])
async def test_listing_threads_follows_an_index(
    store: SqliteStore, cursor: str | None, status: Any, metadata: Any
) -> None:
    statement = select_threads("alice", cursor=cursor, status=status, metadata=metadata)
    plan = await explain(store, *statement)
    assert "USING INDEX threads_by_owner (owner=?" in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("sql", "parameters", "index"),
    [
        (sqlite_messages.EARLIER, ("t", 9, -1), "messages USING PRIMARY KEY (thread_id=? AND turn"),
        (
            sqlite_messages.PAGE,
            ("t", 0, -1, 9),
            "messages USING PRIMARY KEY (thread_id=? AND (turn",
        ),
        (sqlite_messages.OF_RUN, ("r",), "messages USING PRIMARY KEY (thread_id=? AND turn=?)"),
        (sqlite_messages.EVENTS, ("r", 0, 9), "run_events USING PRIMARY KEY (run_id=? AND seq>?)"),
        (
            sqlite_run_lists.PAGE,
            ("t", 9, 9),
            "runs USING INDEX sqlite_autoindex_runs_2 (thread_id=?",
        ),
        (sqlite_run_lists.ALL_RUNNING, (), "runs USING INDEX runs_running"),
        (sqlite_runs.NEXT_PENDING, ("t", "t"), "runs_pending (thread_id=?)"),
        (sqlite_runs.WAITING, (), "runs_pending"),
        (sqlite_run_lists.QUEUE, (), "runs_pending"),
        (sqlite_run_lists.GET, ("r", "t", "alice"), "runs_pending (thread_id=? AND turn<?)"),
        (sqlite_stopping.UNFINISHED, (True, "t", True, "t"), "runs_running (thread_id=?)"),
        (sqlite_stopping.UNFINISHED, (True, "t", True, "t"), "runs_pending (thread_id=?)"),
        (sqlite_stopping.SETTLE, (1, "t"), "runs_running (thread_id=?)"),
        (sqlite_stopping.SETTLE, (1, "t"), "runs_pending (thread_id=?)"),
        (sqlite_stopping.FORGET_TURN, ("t", 1), "PRIMARY KEY (thread_id=? AND turn=?)"),
        (sqlite_resuming.PAGE, ("alice", 9, "r", 9), "threads_interrupted (owner=?)"),
        (sqlite_delays.DUE, (9,), "runs_delayed (start_after<?)"),
        (sqlite_delays.NEXT_DUE, (), "runs_delayed"),
        (sqlite_delays.LAST_DELAYED, ("t", 9), "sqlite_autoindex_runs_2 (thread_id=? AND turn>?)"),
        (sqlite_pruning.ENDED, (9, 9), "runs_ended (ended_at<?)"),
        (sqlite_pruning.LEFT_BEHIND, (9, 9), "runs_interrupted (ended_at<?)"),
        (sqlite_runs.GET_THREAD, ("t", "alice"), "sqlite_autoindex_threads_1 (thread_id=?)"),
    ],
)
async def test_long_tables_are_never_scanned(
    store: SqliteStore, sql: str, parameters: Sequence[Any], index: str
) -> None:
    plan = await explain(store, sql, parameters)
    assert index in plan
    assert "SCAN messages" not in plan
    assert "SCAN threads" not in plan


@pytest.mark.parametrize(
    ("status", "owner", "thread_id", "indexes"),
    [
        (None, None, None, ["sqlite_autoindex_runs_1"]),
        ("error", None, None, ["sqlite_autoindex_runs_1"]),
        ("running", None, None, ["runs_running"]),
        ("pending", None, None, ["runs_pending", "runs_delayed"]),
        (None, "alice", None, ["threads_by_owner"]),
        (None, None, "t", ["sqlite_autoindex_runs_2 (thread_id=?)"]),
    ],
)
@pytest.mark.parametrize("before", [None, datetime(2026, 1, 1, tzinfo=UTC)])
@pytest.mark.parametrize("cursor", [False, True])
async def test_operators_find_runs_through_an_index(
    store: SqliteStore,
    status: Any,
    owner: str | None,
    thread_id: str | None,
    indexes: Sequence[str],
    cursor: bool,
    before: datetime | None,
) -> None:
    place = encode_cursor(f"runs:{(status, owner, thread_id, before)}", "r") if cursor else None
    selection = Selection(
        status=status, owner=owner, thread_id=thread_id, before=before, limit=9, cursor=place
    )
    plan = await explain(store, selection.sql, selection.values)
    assert [index for index in indexes if index not in plan] == []
    assert "SCAN threads" not in plan


async def test_too_many_filters_are_refused(store: SqliteStore) -> None:
    wanted = {f"k{n}": n for n in range(MAX_FILTERS + 1)}
    with pytest.raises(InvalidRequest):
        await store.list_threads("alice", limit=1, metadata=wanted)
    del wanted["k0"]
    assert (await store.list_threads("alice", limit=1, metadata=wanted)).data == []


@given(
    st.datetimes(
        min_value=datetime(1970, 1, 1),  # noqa: DTZ001 – the time zone comes from `timezones`
        max_value=datetime(2100, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from([UTC]),
    )
)
def test_times_are_exact_to_the_microsecond(moment: datetime) -> None:
    assert to_datetime(to_microseconds(moment)) == moment
    assert to_microseconds(moment + timedelta(microseconds=1)) == to_microseconds(moment) + 1


@given(st.integers(0, 2**63 - 1), st.text(max_size=50))
def test_a_cursor_holds_its_place(number: int, text: str) -> None:
    cursor = encode_cursor("list:a", number, text)
    assert decode_cursor("list:a", cursor, int, str) == (number, text)
    with pytest.raises(InvalidRequest):
        decode_cursor("list:b", cursor, int, str)


@pytest.mark.parametrize("place", [(-1,), (2**63,), (True,), ("1",), (1, 1), ()])
def test_a_forged_place_is_refused(place: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidRequest):
        decode_cursor("list", encode_cursor("list", *place), int)


@given(st.text(max_size=60))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_cursor("list", text, int)


def test_what_json_has_no_number_for_becomes_null() -> None:
    assert to_text([float("nan"), float("inf"), 1.5]) == "[null,null,1.5]"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (False, 0, False),
        ([], {}, False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": [1]}, {"a": [True]}, False),
        ({"a": 1}, {"b": 1}, False),
        ([1, 2], [1], False),
        (None, None, True),
        ("1", 1, False),
    ],
)
def test_equality_is_that_of_json(one: Any, other: Any, same: bool) -> None:
    assert same_json(one, other) is same
    assert same_json(other, one) is same


@pytest.mark.parametrize("limit", [0, 1])
async def test_a_history_limit_below_one_keeps_the_question(store: SqliteStore, limit: int) -> None:
    thread = await make_thread(store)
    await take_turn(store, thread.thread_id, "one", "1")
    active = await start(store, thread.thread_id, "two")
    assert list(await store.history(active, limit=limit)) == [active.message]
