"""Keys that an issuer publishes: fetched ahead of time, kept for a while when it is silent."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

from agentflow_server.auth.discovery import discover
from agentflow_server.auth.fetching import Fetcher, FetchFailed
from agentflow_server.auth.jwks import ASYMMETRIC, parse_jwks
from agentflow_server.auth.key_set import KeySet, KeySource
from agentflow_server.errors import AuthUnavailable

log = logging.getLogger(__name__)

TTL = 300.0
"""Seconds after which keys are not used before newer ones were asked for."""
REFRESH_AT = 0.8
"""Part of the TTL after which newer keys are fetched in the background."""
MAX_STALE = 24 * 3600.0
"""Seconds for which old keys are used when no newer ones can be had."""
MIN_INTERVAL = 30.0
"""Seconds between two fetches on account of tokens whose key is not known."""
FIRST_RETRY = 5.0
LOAD_TIMEOUT = 5.0


class RemoteKeys(KeySource):
    """A JSON Web Key Set at `url`, or where the metadata of `issuer` say that it is.

    Whatever tokens come, there is one fetch at a time, and keys that are known are used meanwhile.
    An issuer that is silent from the start means 503 until it answers, never access.
    """

    def __init__(
        self,
        *,
        issuer: str | None = None,
        url: str | None = None,
        algorithms: Collection[str] = ASYMMETRIC,
        fetcher: Fetcher | None = None,
        clock: Callable[[], float] = time.time,
        ttl: float = TTL,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        """Without `url`, `issuer` is asked for it."""
        self._issuer = issuer
        self._url = url
        self._algorithms = frozenset(algorithms).intersection(ASYMMETRIC)
        self._fetcher = fetcher or Fetcher()
        self._clock = clock
        self._ttl = ttl
        self._first_retry = first_retry
        self._keys: KeySet | None = None
        self._source_of_keys: tuple[bytes, frozenset[str]] | None = None
        self._loaded_at = 0.0
        self._asked_at: float | None = None
        self._failure: str | None = None
        self._failures = 0
        self._loading: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def current(self, now: float) -> KeySet:
        if self._keys is None or now - self._loaded_at > MAX_STALE:
            raise AuthUnavailable(reason="keys_unavailable")
        if not self._keys.keys:
            raise AuthUnavailable(reason="no_usable_keys")
        return self._keys

    def problems(self) -> Sequence[str]:
        try:
            self.current(self._clock())
        except AuthUnavailable:
            why = self._failure or "the set has no key that can be used"
            if self._issuer is None:
                return (f"the keys of jwks_url cannot be had: {self._url}: {why}",)
            return (f"the keys of {self._issuer} cannot be had: {why}",)
        return ()

    def is_overdue(self, now: float) -> bool:
        # After a failure nobody waits for the next try: the old keys are good for a while.
        return self._failure is None and now - self._loaded_at >= self._ttl

    async def renew(self, now: float) -> bool:
        before = self._keys
        if self._loading is None and not self.is_overdue(now):
            # A clock that is set back must not make this interval longer.
            if self._asked_at is not None and abs(now - self._asked_at) < MIN_INTERVAL:
                return False
            self._asked_at = now
        await self._load_once()
        return self._keys is not before

    async def open(self) -> None:
        """Fetch the keys; a failure is logged and not raised."""
        await self._load_once()
        self._keeping = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        tasks = {task for task in (self._keeping, self._loading) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._keeping = None
        await self._fetcher.close()

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            await self._load_once()

    def _pause(self) -> float:
        if self._failures:
            return min(MIN_INTERVAL, self._first_retry * 2.0 ** min(self._failures - 1, 10))
        return REFRESH_AT * self._ttl

    async def _load_once(self) -> None:
        """Whoever comes while a fetch is on its way waits for that one."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        # Not awaited itself: a request that is cancelled must not cancel it for the others.
        await asyncio.wait({self._loading})

    async def _load(self) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(LOAD_TIMEOUT):
                await self._fetch()
        except FetchFailed as exc:
            self._note_failure(str(exc))
        except TimeoutError:
            self._note_failure(f"no answer within {LOAD_TIMEOUT:g} s")
        except Exception:
            # Background work: a failure is noted, and whoever needs the keys gets a 503.
            log.exception("fetching the keys of %s failed", self._issuer or self._url)
            self._note_failure("an unexpected error, see the log")
        else:
            self._note_success(started)
        finally:
            self._loading = None

    async def _fetch(self) -> None:
        url, algorithms = self._url, self._algorithms
        if url is None:
            found = await discover(self._fetcher, self._issuer or "", algorithms)
            url, algorithms = found.jwks_url, found.algorithms
        data = await self._fetcher.get(url)
        if (data, algorithms) == self._source_of_keys:
            return  # the same object: what was verified with it stays verified
        try:
            self._keys = parse_jwks(data, algorithms)
        except ValueError as exc:
            raise FetchFailed(f"{url}: {exc}") from None
        self._source_of_keys = data, algorithms

    def _note_success(self, started: float) -> None:
        if self._failure is not None:
            log.info("the keys of %s are there again", self._issuer or self._url)
        self._loaded_at, self._failure = started, None
        self._failures = 0
        for problem in self.problems():
            self._failures = 1
            log.warning("%s: its tokens are answered 503 until then", problem)

    def _note_failure(self, why: str) -> None:
        self._failure = why
        self._failures += 1
        self._asked_at = self._clock()
        problems = self.problems()
        for problem in problems:
            log.warning("%s: its tokens are answered 503 until then", problem)
        if not problems:
            log.warning(
                "new keys of %s cannot be had, the old ones stay in use: %s",
                self._issuer or self._url,
                why,
            )
