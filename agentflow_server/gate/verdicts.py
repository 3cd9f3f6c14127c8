"""Good answers, believed for a moment; whoever asks the same meanwhile waits for one answer."""

import asyncio
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

from agentflow_server.client import Token
from agentflow_server.gate.errors import CardExpired, CardUnverified
from agentflow_server.gate.keys import LocalKeys

MAX_REMEMBERED = 100

_GRACE = 30.0
"""Seconds over `timeout` for an answer that never comes, which should be impossible."""


@dataclass(frozen=True, slots=True)
class Question:
    """Is this token good, by the server at `url`, or by keys of its own?"""

    token: Token
    url: str
    keys: LocalKeys | None


@dataclass(frozen=True, slots=True)
class _Until:
    """When an answer ends: by a clock that nobody sets, and by the one that tokens go by."""

    monotonic: float
    time: float

    def is_over(self) -> bool:
        return time.monotonic() >= self.monotonic or time.time() >= self.time


class Verdicts:
    """Asks in threads of its own, one for each question: it does not matter whether whoever waits
    has an event loop, or which."""

    def __init__(self, *, timeout: float, cache_seconds: float) -> None:
        self._timeout = timeout
        self._cache_seconds = cache_seconds
        self._lock = threading.Lock()
        self._good: dict[Question, _Until] = {}
        self._asked: dict[Question, Future[None]] = {}

    def wait_for(self, question: Question) -> None:
        """Returns if the answer is yes. Raises CardError."""
        answer = self._find(question)
        if answer is not None:
            try:
                answer.result(self._timeout + _GRACE)
            except TimeoutError:
                raise _silence(question) from None

    async def await_for(self, question: Question) -> None:
        """Returns if the answer is yes. Raises CardError."""
        answer = self._find(question)
        if answer is not None:
            try:
                async with asyncio.timeout(self._timeout + _GRACE):
                    # Others may wait for it, too: it goes on when this one is cancelled.
                    await asyncio.shield(asyncio.wrap_future(answer))
            except TimeoutError:
                raise _silence(question) from None

    def _find(self, question: Question) -> "Future[None] | None":
        """The answer to come; None if it is known to be yes. Raises CardExpired."""
        check_expiry(question.token.expires_at)
        with self._lock:
            until = self._good.get(question)
            if until is not None and not until.is_over():
                return None
            answer = self._asked.get(question)
            if answer is None:
                answer = Future()
                thread = threading.Thread(
                    target=self._ask, args=(question, answer), name="agentflow-card", daemon=True
                )
                thread.start()
                self._asked[question] = answer  # before the thread can have the lock
        return answer

    def _ask(self, question: Question, answer: "Future[None]") -> None:
        try:
            asyncio.run(self._ask_and_tell(question, answer))
        except BaseException as error:  # noqa: BLE001 – such as no loop, for want of files
            if not answer.done():
                self._tell(question, answer, error=error)

    async def _ask_and_tell(self, question: Question, answer: "Future[None]") -> None:
        """Tells before the loop is closed: that waits for a resolver that hangs."""
        try:
            # Brings the web framework, which whoever only holds a card does without.
            from agentflow_server.gate.asking import ask  # noqa: PLC0415

            expires_at = await ask(question, self._timeout)
            check_expiry(expires_at)
        except BaseException as error:  # noqa: BLE001 – raised where it is waited for
            self._tell(question, answer, error=error)
        else:
            self._tell(question, answer, expires_at=expires_at)

    def _tell(
        self,
        question: Question,
        answer: "Future[None]",
        *,
        expires_at: float | None = None,
        error: BaseException | None = None,
    ) -> None:
        with self._lock:
            del self._asked[question]
            if error is None:
                self._remember(question, expires_at)
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def _remember(self, question: Question, expires_at: float | None) -> None:
        self._good.pop(question, None)
        if len(self._good) >= MAX_REMEMBERED:
            del self._good[next(iter(self._good))]
        ends = [at for at in (expires_at, question.token.expires_at) if at is not None]
        until = _Until(time.monotonic() + self._cache_seconds, min(ends, default=float("inf")))
        self._good[question] = until


def check_expiry(expires_at: float | None) -> None:
    """Raises CardExpired."""
    if expires_at is not None and time.time() >= expires_at:
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(max(0.0, expires_at)))
        raise CardExpired(f"the card's token expired on {at}: a new card is needed")


def _silence(question: Question) -> CardUnverified:
    return CardUnverified(f"{question.url} did not answer")
