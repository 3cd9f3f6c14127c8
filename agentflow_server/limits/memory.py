"""A rate limiter in this process: a sliding window counter for each key."""

import time
from collections.abc import Callable

from agentflow_server.interfaces import Allowance, Quota, RateLimiter

MAX_KEYS = 100_000

_Key = tuple[str, int, int]


class _Window:
    """The hits of the window that began at `start`, and of the one before it."""

    __slots__ = ("count", "previous", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.count = 0
        self.previous = 0


class MemoryRateLimiter(RateLimiter):
    """Counts the hits of this window and, by the share that still overlaps, of the last one.

    That keeps any stretch of a window's length to about the quota, where a token bucket (GCRA)
    lets twice as much through, and answers as Redis does; it costs three numbers a key.

    Keys are kept in two generations. When the young one is full, or old enough that whatever it
    does not hold has expired, it becomes the old one and the old one is dropped: what goes first
    is what was not asked about for longest.
    """

    def __init__(
        self, *, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._half = max(1, max_keys // 2)
        self._clock = clock
        self._young: dict[_Key, _Window] = {}
        self._old: dict[_Key, _Window] = {}
        self._turned = clock()
        self._longest = 0

    def __len__(self) -> int:
        """How many keys are in memory."""
        return len(self._young) + len(self._old)

    async def hit(self, key: str, quota: Quota) -> Allowance:
        now = self._clock()
        window = self._find((key, quota.amount, quota.seconds), now)
        used = _advance(window, quota.seconds, now)
        if used >= quota.amount:
            return Allowance(False, quota, 0, _until_next(window, quota.seconds, now))
        window.count += 1
        left = quota.amount - used - 1
        return Allowance(True, quota, left, _until_next(window, quota.seconds, now))

    async def peek(self, key: str, quota: Quota) -> Allowance:
        now = self._clock()
        found = (key, quota.amount, quota.seconds)
        window = self._young.get(found) or self._old.get(found)
        if window is None:
            return Allowance(quota.amount > 0, quota, quota.amount, 0)
        left = max(0, quota.amount - _advance(window, quota.seconds, now))
        return Allowance(left > 0, quota, left, _until_next(window, quota.seconds, now))

    def _find(self, key: _Key, now: float) -> _Window:
        if len(self._young) >= self._half or now - self._turned > 2 * self._longest:
            self._old, self._young, self._turned = self._young, {}, now
        window = self._young.get(key)
        if window is None:
            window = self._old.pop(key, None) or _Window(now)
            self._young[key] = window
            self._longest = max(self._longest, key[2])
        return window


def _advance(window: _Window, seconds: int, now: float) -> int:
    """Move the window on to `now`; the hits that count there."""
    elapsed = now - window.start
    if elapsed >= 2 * seconds:
        window.start, window.previous, window.count = now, 0, 0
    elif elapsed >= seconds:
        window.start += seconds
        window.previous, window.count = window.count, 0
    if not window.previous:
        return window.count
    share = 1 - (now - window.start) / seconds
    return window.count + int(window.previous * share)


def _until_next(window: _Window, seconds: int, now: float) -> int:
    """Whole seconds after which one hit more fits than now; 0 when nothing is counted."""
    remaining = window.start + seconds - now
    if window.previous:
        # Each hit of the last window fades when its share of this one is over.
        return int(remaining % (seconds / window.previous)) + 1
    return int(remaining) + 1 if window.count else 0
