"""What every RateLimiter has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agentflow_server.interfaces import Quota, RateLimiter

Advance = Callable[[float], Awaitable[None]]

HOSTILE_KEYS = ("", " ", "a" * 100_000, "\0", "a\r\nb", "{a}", "}{", "*", "\u00fc\u202e", "\ud800")


class RateLimiterSuite:
    """Subclass it, give it your limiter and a way to move its time, and run pytest:

    class TestMyLimiter(RateLimiterSuite):
        @pytest.fixture
        async def limiter(self):
            limiter = MyLimiter(clock=self.clock)
            await limiter.open()
            yield limiter
            await limiter.close()

        @pytest.fixture
        def advance(self, limiter):
            async def advance(seconds): ...
            return advance
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def limiter(self) -> RateLimiter:
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def advance(self) -> Advance:
        """Let so many seconds pass for the limiter."""
        raise NotImplementedError("override this fixture")

    async def test_a_quota_can_be_used_up_and_no_more(self, limiter: RateLimiter) -> None:
        quota = Quota(3, 60)
        answers = [await limiter.hit("alice", quota) for _ in range(5)]
        assert [answer.allowed for answer in answers] == [True, True, True, False, False]
        assert [answer.remaining for answer in answers] == [2, 1, 0, 0, 0]
        assert {answer.quota for answer in answers} == {quota}

    async def test_a_key_that_was_never_hit_has_its_whole_quota(self, limiter: RateLimiter) -> None:
        answer = await limiter.peek("alice", Quota(3, 60))
        assert (answer.allowed, answer.remaining, answer.reset_after) == (True, 3, 0)

    async def test_peeking_counts_nothing(self, limiter: RateLimiter) -> None:
        quota = Quota(2, 60)
        await limiter.hit("alice", quota)
        for _ in range(5):
            answer = await limiter.peek("alice", quota)
            assert (answer.allowed, answer.remaining) == (True, 1)
        await limiter.hit("alice", quota)
        assert not (await limiter.peek("alice", quota)).allowed

    async def test_one_key_costs_another_nothing(self, limiter: RateLimiter) -> None:
        quota = Quota(1, 60)
        assert (await limiter.hit("alice", quota)).allowed
        assert not (await limiter.hit("alice", quota)).allowed
        assert (await limiter.hit("bob", quota)).allowed

    async def test_two_quotas_of_a_key_are_counted_apart(self, limiter: RateLimiter) -> None:
        assert (await limiter.hit("alice", Quota(1, 60))).allowed
        assert not (await limiter.hit("alice", Quota(1, 60))).allowed
        assert (await limiter.hit("alice", Quota(1, 3600))).remaining == 0
        assert (await limiter.hit("alice", Quota(2, 60))).remaining == 1

    async def test_whoever_waits_as_long_as_he_is_told_is_let_in(
        self, limiter: RateLimiter, advance: Advance
    ) -> None:
        quota = Quota(5, 60)
        for _ in range(5):
            await limiter.hit("alice", quota)
        refused = await limiter.hit("alice", quota)
        assert 1 <= refused.reset_after <= 61
        # Not at the very moment of the first hits: a limiter may count in whole milliseconds.
        await advance(refused.reset_after + 0.1)
        assert (await limiter.hit("alice", quota)).allowed
        await advance(20)
        for _ in range(5):
            refused = await limiter.hit("alice", quota)
        assert not refused.allowed
        await advance(refused.reset_after + 0.1)
        assert (await limiter.hit("alice", quota)).allowed

    async def test_after_two_windows_everything_is_forgotten(
        self, limiter: RateLimiter, advance: Advance
    ) -> None:
        quota = Quota(3, 10)
        for _ in range(4):
            await limiter.hit("alice", quota)
        await advance(20.1)
        answer = await limiter.peek("alice", quota)
        assert (answer.allowed, answer.remaining, answer.reset_after) == (True, 3, 0)

    async def test_the_border_of_two_windows_lets_nobody_have_both_quotas(
        self, limiter: RateLimiter, advance: Advance
    ) -> None:
        quota = Quota(20, 60)
        await limiter.hit("alice", quota)
        await advance(58)
        for _ in range(19):
            await limiter.hit("alice", quota)
        await advance(3)
        answers = [await limiter.hit("alice", quota) for _ in range(20)]
        assert sum(answer.allowed for answer in answers) <= 2

    async def test_a_refused_hit_does_not_make_the_wait_longer(
        self, limiter: RateLimiter, advance: Advance
    ) -> None:
        quota = Quota(2, 60)
        for _ in range(50):
            await limiter.hit("alice", quota)
        await advance(90)
        assert (await limiter.peek("alice", quota)).remaining >= 1

    async def test_hits_at_the_same_time_are_all_counted(self, limiter: RateLimiter) -> None:
        quota = Quota(10, 60)
        answers = await asyncio.gather(*(limiter.hit("alice", quota) for _ in range(40)))
        assert sum(answer.allowed for answer in answers) == 10

    @pytest.mark.parametrize("key", HOSTILE_KEYS, ids=range(len(HOSTILE_KEYS)))
    async def test_any_text_is_a_key_of_its_own(self, limiter: RateLimiter, key: str) -> None:
        quota = Quota(1, 60)
        assert (await limiter.hit(key, quota)).allowed
        assert not (await limiter.hit(key, quota)).allowed
        assert (await limiter.hit(f"{key}x", quota)).allowed
