"""The limiter in Redis: the contract with a real server, and without one."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import Quota, RateLimiter
from agentflow_server.testing.limits import Advance, RateLimiterSuite

pytest.importorskip("limits", reason="the extra redis is not installed")
redis = pytest.importorskip("redis", reason="the extra redis is not installed")

from agentflow_server.limits.redis import RedisRateLimiter  # noqa: E402

QUOTA = Quota(3, 60)


@pytest.fixture
def database(valkey: str) -> Iterator[Any]:
    client = redis.Redis.from_url(valkey.replace("valkey:", "redis:"))
    client.flushall()
    yield client
    client.close()


@pytest.fixture
async def shared(valkey: str, database: Any) -> AsyncIterator[RedisRateLimiter]:
    limiter = RedisRateLimiter(valkey)
    await limiter.open()
    yield limiter
    await limiter.close()


class TestRedisRateLimiter(RateLimiterSuite):
    @pytest.fixture
    async def limiter(self, shared: RedisRateLimiter) -> RateLimiter:
        return shared

    @pytest.fixture
    def advance(self, database: Any) -> Advance:
        """The scripts know time only as what is left of a key's life."""

        async def advance(seconds: float) -> None:
            for key in database.scan_iter():
                left = database.pttl(key) - round(seconds * 1000)
                database.pexpire(key, left) if left > 0 else database.delete(key)

        return advance


async def test_two_processes_share_their_counts(shared: RedisRateLimiter, valkey: str) -> None:
    other = RedisRateLimiter(valkey)
    await other.open()
    try:
        assert [(await shared.hit("alice", QUOTA)).remaining for _ in range(2)] == [2, 1]
        assert (await other.hit("alice", QUOTA)).remaining == 0
        assert not (await shared.hit("alice", QUOTA)).allowed
    finally:
        await other.close()


async def test_the_server_learns_no_names_and_forgets_its_keys(
    shared: RedisRateLimiter, database: Any
) -> None:
    await shared.hit("alice@example.org", QUOTA)
    keys = database.keys()
    assert keys
    assert not any(b"alice" in key for key in keys)
    assert all(0 < database.ttl(key) <= 2 * QUOTA.seconds for key in keys)


async def test_it_may_be_closed_and_opened_again(shared: RedisRateLimiter) -> None:
    await shared.hit("alice", QUOTA)
    await shared.close()
    await shared.open()
    assert (await shared.hit("alice", QUOTA)).remaining == 1


async def test_without_redis_each_process_counts_for_itself(
    clock: Any, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RedisRateLimiter(f"redis://:hunter2hunter2@127.0.0.1:{free_port}", clock=clock)
    await limiter.open()
    allowed = [(await limiter.hit("alice", QUOTA)).allowed for _ in range(5)]
    assert allowed == [True, True, True, False, False]
    assert (await limiter.peek("bob", QUOTA)).allowed
    await limiter.close()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "each process counts for itself" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_failure_is_logged_once_a_minute(
    clock: Any, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RedisRateLimiter(f"redis://127.0.0.1:{free_port}", clock=clock)
    await limiter.open()
    for _ in range(61):
        await limiter.hit("alice", QUOTA)
        clock.now += 2
    await limiter.close()
    assert len(caplog.records) == 3


async def test_redis_is_asked_again_when_it_is_back(
    valkey: str, database: Any, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RedisRateLimiter(valkey, clock=clock)
    await limiter.open()
    # A server that is full refuses to write, and says so.
    database.config_set("maxmemory", "1")
    try:
        assert (await limiter.hit("alice", QUOTA)).remaining == 2
    finally:
        database.config_set("maxmemory", "0")
    assert len(caplog.records) == 1
    assert not database.keys()
    assert (await limiter.hit("alice", QUOTA)).remaining == 1
    clock.now += 2
    assert (await limiter.hit("alice", QUOTA)).remaining == 2
    assert database.keys()
    await limiter.close()


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "http://hunter2",
        "redis://alice:hunter2@host:99999999",
        "redis://alice:hunter2@[host",
        "redis://alice:hunter2@host?unknown=1",
        "redis://alice:hunter2@host?socket_timeout=soon",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisRateLimiter(url)
    (problem,) = caught.value.problems
    assert problem.startswith("redis: ")
    assert "hunter2" not in problem
