"""How long a delivery that failed waits."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_server.webhooks.backoff import (
    JITTER,
    LONGEST,
    SCHEDULE,
    read_retry_after,
    wait_after,
)


def test_each_attempt_waits_longer_than_the_one_before() -> None:
    waits = [wait_after(n, None) for n in range(1, len(SCHEDULE) + 1)]
    assert waits == sorted(waits)
    assert 5 <= waits[0] <= 6
    assert 86_400 <= wait_after(50, None) <= 86_400 * (1 + JITTER)


@given(
    st.integers(min_value=1, max_value=99),
    st.none() | st.floats(min_value=0, max_value=1e12, allow_nan=False),
)
def test_a_receiver_can_ask_for_more_time_but_not_for_less(n: int, asked: float | None) -> None:
    usual = SCHEDULE[min(n, len(SCHEDULE)) - 1]
    wait = wait_after(n, asked)
    assert max(usual, min(asked or 0, LONGEST)) <= wait <= LONGEST * (1 + JITTER)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        ("0", 0.0),
        ("9" * 400, LONGEST),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("soon", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37", 0.0),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_the_header_is_read_as_seconds(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value) == seconds


def test_the_header_may_be_a_date() -> None:
    text = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    seconds = read_retry_after(text)
    assert seconds is not None
    assert 3500 < seconds <= 3600


@given(st.text(max_size=40))
def test_no_header_breaks_it(value: str) -> None:
    seconds = read_retry_after(value)
    assert seconds is None or seconds >= 0
