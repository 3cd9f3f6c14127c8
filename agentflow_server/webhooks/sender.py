"""Sends the deliveries that the end of runs has left in the store, until each has arrived."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from agentflow_server.config import WebhooksConfig
from agentflow_server.errors import InvalidRequest
from agentflow_server.interfaces import WebhookStore
from agentflow_server.log_context import bind
from agentflow_server.models import Delivery
from agentflow_server.webhooks.backoff import read_retry_after, wait_after
from agentflow_server.webhooks.courier import Answer, Courier, PostFailed
from agentflow_server.webhooks.document import MAX_BYTES, write_document
from agentflow_server.webhooks.signing import Signer
from agentflow_server.webhooks.urls import check_url

log = logging.getLogger(__name__)

Result = Literal["delivered", "failed", "given_up"]
Count = Callable[[Result], None]
"""Is told what came of each attempt."""

CONCURRENCY = 8
PER_HOST = 2
"""One that is slow must leave room for the others."""
GRACE_SECONDS = 5.0
RETRY_SECONDS = 5.0
SHORTEST_WAIT = 0.05
_SETTLING_SECONDS = 30.0
"""How much longer than an attempt its lease is."""
_GONE = 410
_FAILURE_LENGTH = 200


def _ignore(_: Result) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Failure:
    why: str
    is_final: bool = False
    retry_after: float | None = None


class WebhookSender:
    """Works while it is open; may be opened several times.

    Of one that is killed, what was under way is sent again when its lease is over, by itself or by
    another one. `poll` is after how many seconds it looks for what others have left; None: nobody
    else leaves anything, and everybody calls `wake`.
    """

    def __init__(
        self,
        store: WebhookStore,
        config: WebhooksConfig,
        *,
        poll: float | None = None,
        count: Count = _ignore,
        make_courier: Callable[[], Courier] | None = None,
    ) -> None:
        """Raises ConfigError."""
        self._store = store
        self._config = config
        self._poll = poll
        self._count = count
        self._make_courier = make_courier or self._usual_courier
        self._signer = Signer(config.keys)
        self._changed = asyncio.Event()
        self._hosts: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False

    async def __aenter__(self) -> Self:
        self._is_closing = False
        self._changed = asyncio.Event()
        self._courier = self._make_courier()
        self._work = asyncio.create_task(self._go_on(), name="webhooks")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """What is under way has GRACE_SECONDS to end; the rest is for the next one who sends."""
        self._is_closing = True
        self.wake()
        await self._work
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._courier.close()

    def wake(self) -> None:
        """A run with a webhook has ended. Only for the thread of the loop; never raises."""
        self._changed.set()

    def _usual_courier(self) -> Courier:
        return Courier(timeout=self._config.timeout, allow_private=self._config.allow_private)

    async def _go_on(self) -> None:
        while not self._is_closing:
            try:
                wait = await self._fill()
            except Exception:  # the top of a background task: the next look may do better
                log.exception("webhooks that are due cannot be found")
                wait = RETRY_SECONDS
            if self._poll is not None:
                wait = self._poll if wait is None else min(wait, self._poll)
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    async def _fill(self) -> float | None:
        """Begin what is due, as far as there is room. Returns in how many seconds to look again;
        whoever ends makes room, and says so."""
        while len(self._tasks) < CONCURRENCY and not self._is_closing:
            full = [host for host, number in self._hosts.items() if number >= PER_HOST]
            # First, because it writes nothing: mostly there is none.
            wait = await self._store.next_delivery(skip=full)
            if wait is None or wait > 0:
                return None if wait is None else max(wait, SHORTEST_WAIT)
            delivery = await self._store.claim_delivery(
                seconds=self._config.timeout + _SETTLING_SECONDS, max_bytes=MAX_BYTES, skip=full
            )
            if delivery is None:  # somebody else was faster
                return SHORTEST_WAIT
            self._begin(delivery)
        return None

    def _begin(self, delivery: Delivery) -> None:
        host = _host_of(delivery)
        self._hosts[host] += 1
        task = asyncio.create_task(self._deliver(delivery), name=f"webhook-{delivery.delivery_id}")
        self._tasks.add(task)

        def make_room(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]
            self.wake()

        task.add_done_callback(make_room)

    async def _deliver(self, delivery: Delivery) -> None:
        with bind(thread=delivery.thread_id, run=delivery.run_id):
            try:
                await self._settle(delivery)
            except Exception:  # the same: when its lease is over, it is tried again
                log.exception("webhook %s: what came of it is unknown", delivery.delivery_id)

    async def _settle(self, delivery: Delivery) -> None:
        """Try once, and store what came of it."""
        try:
            failure = await self._attempt(delivery)
        except asyncio.CancelledError:
            await self._store.postpone_delivery(delivery, "the server has stopped", seconds=0)
            raise
        if failure is None:
            await self._store.end_delivery(delivery)
            self._count("delivered")
            log.info("webhook %s: %s has it", delivery.delivery_id, _host_of(delivery))
            return
        is_last = failure.is_final or delivery.attempt >= self._config.max_attempts
        seconds = None if is_last else wait_after(delivery.attempt, failure.retry_after)
        await self._store.postpone_delivery(delivery, failure.why, seconds=seconds)
        self._count("given_up" if is_last else "failed")
        log.warning(
            "webhook %s: %s does not have it (%s), attempt %d, %s",
            delivery.delivery_id,
            _host_of(delivery),
            failure.why,
            delivery.attempt,
            "given up" if seconds is None else f"again in {seconds:.0f} s",
        )

    async def _attempt(self, delivery: Delivery) -> _Failure | None:
        """None if it has arrived."""
        try:
            answer = await self._post(delivery)
        except InvalidRequest as exc:
            return _Failure(str(exc), is_final=True)
        except PostFailed as exc:
            why = " ".join(str(exc).split())
            return _Failure(why[:_FAILURE_LENGTH], is_final=exc.is_final)
        except Exception:  # the top of a background task: it must not be tried for ever
            log.exception("webhook %s cannot be sent", delivery.delivery_id)
            return _Failure("it cannot be sent")
        if 200 <= answer.status < 300:
            return None
        return _Failure(
            f"status {answer.status}",
            is_final=answer.status == _GONE,
            retry_after=read_retry_after(answer.retry_after),
        )

    async def _post(self, delivery: Delivery) -> Answer:
        """Raises PostFailed, and InvalidRequest: the rules may have changed since it was stored."""
        url = check_url(delivery.url, self._config)
        body = write_document(delivery)
        return await self._courier.post(url, self._signer.sign(delivery.delivery_id, body), body)


def _host_of(delivery: Delivery) -> str:
    """As the store has it, with its port."""
    return delivery.url.split("/")[2]
