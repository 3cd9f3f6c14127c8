"""The limiter in memory: the contract, and that its memory has an end."""

from collections.abc import Callable
from typing import Any

import pytest

from agentflow_server.interfaces import Quota
from agentflow_server.limits import MemoryRateLimiter
from agentflow_server.testing.limits import Advance, RateLimiterSuite

QUOTA = Quota(3, 60)


class TestMemoryRateLimiter(RateLimiterSuite):
    @pytest.fixture
    async def limiter(self, clock: Callable[[], float]) -> MemoryRateLimiter:
        return MemoryRateLimiter(clock=clock)

    @pytest.fixture
    def advance(self, clock: Any) -> Advance:
        async def advance(seconds: float) -> None:
            clock.now += seconds

        return advance


async def test_r65_strangers_do_not_fill_the_memory(clock: Any) -> None:
    limiter = MemoryRateLimiter(max_keys=100, clock=clock)
    for number in range(10_000):
        await limiter.hit(f"stranger {number}", QUOTA)
        assert len(limiter) <= 100


async def test_r65_peeking_at_strangers_takes_no_memory(clock: Any) -> None:
    limiter = MemoryRateLimiter(clock=clock)
    for number in range(100):
        await limiter.peek(f"stranger {number}", QUOTA)
    assert len(limiter) == 0


async def test_r65_a_key_in_use_outlives_a_flood_of_others(clock: Any) -> None:
    limiter = MemoryRateLimiter(max_keys=100, clock=clock)
    answers = []
    for number in range(1_000):
        await limiter.hit(f"stranger {number}", QUOTA)
        if number % 10 == 0:
            answers.append(await limiter.hit("alice", QUOTA))
    assert [answer.allowed for answer in answers] == [True] * 3 + [False] * 97


async def test_what_has_expired_is_dropped(clock: Any) -> None:
    limiter = MemoryRateLimiter(clock=clock)
    for number in range(1_000):
        await limiter.hit(f"stranger {number}", QUOTA)
    for _ in range(2):
        clock.now += 2 * QUOTA.seconds + 1
        await limiter.hit("alice", QUOTA)
    assert len(limiter) == 1


async def test_the_hits_of_the_last_window_fade_one_by_one(clock: Any) -> None:
    limiter = MemoryRateLimiter(clock=clock)
    quota = Quota(6, 60)
    for _ in range(6):
        await limiter.hit("alice", quota)
    clock.now += 60.5
    freed = []
    for _ in range(6):
        freed.append((await limiter.peek("alice", quota)).remaining)
        clock.now += 10
    assert freed == [1, 2, 3, 4, 5, 6]
