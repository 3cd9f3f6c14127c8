"""A rate limiter that all replicas share: counters in Redis or Valkey."""

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import Allowance, Quota, RateLimiter
from agentflow_server.limits.memory import MemoryRateLimiter

log = logging.getLogger(__name__)

_Question = Callable[[SlidingWindowCounterRateLimiter, str, Quota], Awaitable[Allowance]]

_MAX_CONNECTIONS = 32
_TIMEOUT = 0.5
"""Seconds that a request waits for Redis at most, for a connection and for an answer."""
_PAUSE = 1.0
"""Seconds in which nobody asks again after Redis has failed."""
_LOG_EVERY = 60.0
_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}


class RedisRateLimiter(RateLimiter):
    """The same sliding window counters as in memory, by the scripts of the library `limits`.

    While Redis cannot be used each process counts for itself: requests go on, and a guesser who
    manages to stop Redis does not get free attempts.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`redis://`, `rediss://`, `valkey://` or `valkeys://`. Raises ConfigError."""
        self._url = _checked(url)
        self._clock = clock
        self._local = MemoryRateLimiter(clock=clock)
        self._pool: BlockingConnectionPool | None = None
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._ask_from = self._log_from = clock()

    async def open(self) -> None:
        self._pool = _make_pool(self._url)
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="agentflow",
            # Documented there, but not in its types.
            connection_pool=self._pool,  # type: ignore[arg-type]
        )
        self._shared = SlidingWindowCounterRateLimiter(storage)

    async def close(self) -> None:
        pool, self._pool, self._shared = self._pool, None, None
        if pool is not None:
            await pool.aclose()

    async def hit(self, key: str, quota: Quota) -> Allowance:
        return await self._ask(_hit, key, quota) or await self._local.hit(key, quota)

    async def peek(self, key: str, quota: Quota) -> Allowance:
        return await self._ask(_peek, key, quota) or await self._local.peek(key, quota)

    async def _ask(self, question: _Question, key: str, quota: Quota) -> Allowance | None:
        """None while Redis cannot be used."""
        if self._shared is None or self._clock() < self._ask_from:
            return None
        try:
            return await question(self._shared, _name(key), quota)
        except (RedisError, OSError) as exc:
            self._note_failure(exc)
            return None

    def _note_failure(self, error: Exception) -> None:
        now = self._clock()
        self._ask_from = now + _PAUSE
        if now >= self._log_from:
            self._log_from = now + _LOG_EVERY
            log.error(
                "Redis cannot be used (%s: %s): each process counts for itself",
                type(error).__name__,
                error,
            )


async def _hit(shared: SlidingWindowCounterRateLimiter, name: str, quota: Quota) -> Allowance:
    allowed = await shared.hit(RateLimitItemPerSecond(quota.amount, quota.seconds), name)
    after = await _peek(shared, name, quota)
    # Meanwhile others may have hit, or time may have freed a place: the verdict stands.
    return replace(
        after,
        allowed=allowed,
        remaining=after.remaining if allowed else 0,
        reset_after=max(1, after.reset_after),
    )


async def _peek(shared: SlidingWindowCounterRateLimiter, name: str, quota: Quota) -> Allowance:
    item = RateLimitItemPerSecond(quota.amount, quota.seconds)
    reset_time, remaining = await shared.get_window_stats(item, name)
    if remaining == quota.amount:
        return Allowance(True, quota, remaining, 0)
    return Allowance(remaining > 0, quota, remaining, max(0, int(reset_time - time.time())) + 1)


def _name(key: str) -> str:
    """Whoever reads the database learns no user ids, and any text makes a key of one length."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _checked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ConfigError(f"redis: expected a URL with {', '.join(_SCHEMES)}")
    url = f"{_SCHEMES[scheme]}://{rest}"
    try:
        # Connects to nothing yet, and is not typed.
        _make_pool(url).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        # The library's own text could show the password.
        raise ConfigError("redis: is not a URL that the client understands") from None
    return url


def _make_pool(url: str) -> BlockingConnectionPool:
    return BlockingConnectionPool.from_url(
        url,
        max_connections=_MAX_CONNECTIONS,
        timeout=_TIMEOUT,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        # Without this it tries for seconds, while the request waits.
        retry=Retry(NoBackoff(), 0),
    )
