"""When a delivery that failed is tried again."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

SCHEDULE = (5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0, 86_400.0)
"""Seconds after each failed attempt; the last one counts for all further ones."""

JITTER = 0.2
LONGEST = SCHEDULE[-1]


def wait_after(attempt: int, retry_after: float | None) -> float:
    """Seconds to wait after `attempt` (the first is 1) has failed.

    A receiver that asks for more time gets it, up to LONGEST. Some of it is chance, so that those
    that failed together do not come back together.
    """
    usual = SCHEDULE[min(attempt, len(SCHEDULE)) - 1]
    asked = min(retry_after or 0.0, LONGEST)
    return max(usual, asked) * random.uniform(1.0, 1.0 + JITTER)  # noqa: S311 – not a secret


def read_retry_after(value: str | None) -> float | None:
    """Seconds, of a header that gives them or a date; None for anything else."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
