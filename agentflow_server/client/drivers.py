"""The two who take steps: one in the caller's thread, one on his event loop."""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from typing import Any, TypeVar

import httpx2
from anyio import to_thread

from agentflow_server.client.errors import AgentflowClientError
from agentflow_server.client.steps import (
    FAILURES,
    Emit,
    Finish,
    Flow,
    Items,
    Load,
    Pause,
    Read,
    Send,
    Step,
    Steps,
    Work,
    emit_result,
)

T = TypeVar("T")


class SyncDriver:
    """Takes steps in the thread of whoever calls; any number of threads may."""

    def __init__(self, http: httpx2.Client | None) -> None:
        """Closes `http` in the end only if it made it."""
        self._is_own = http is None
        self.http = http or httpx2.Client()
        self.closed = threading.Event()

    def run(self, steps: Steps[T]) -> T:
        with closing(self.iterate(emit_result(steps))) as results:
            return next(results)

    def iterate(self, steps: Items[T]) -> Generator[T, None, None]:
        with closing(Flow(steps)) as flow, closing(_SyncLine(self)) as line:
            while flow.step is not None:
                if isinstance(flow.step, Emit):
                    yield flow.step.item
                    flow.give(None)
                    continue
                try:
                    outcome = line.take(flow.step)
                except FAILURES as error:
                    flow.fail(error)
                else:
                    flow.give(outcome)

    def close(self) -> None:
        self.closed.set()
        if self._is_own:
            self.http.close()


class _SyncLine:
    """One conversation: at most one response is open at a time."""

    def __init__(self, driver: SyncDriver) -> None:
        self._driver = driver
        self._response: httpx2.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def take(self, step: Step) -> Any:
        match step:
            case Send(request):
                return self._open(request)
            case Read():
                return next(self._chunks, None)
            case Load():
                return self._response and self._response.read()
            case Pause(seconds):
                if self._driver.closed.wait(seconds):
                    raise AgentflowClientError("the client was closed", code="closed")
                return None
            case Work(do):
                return _settle(do())
            case Finish(steps):
                return self._driver.run(steps)

    def _open(self, request: httpx2.Request) -> httpx2.Response:
        self.close()
        response = self._driver.http.send(request, stream=True, auth=None, follow_redirects=False)
        self._response, self._chunks = response, response.iter_bytes()
        return response

    def close(self) -> None:
        if self._response is not None:
            self._response.close()


def _settle(result: Any) -> Any:
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("an async function gives tokens to an AsyncAgentflowClient only")
    return result


class AsyncDriver:
    """Takes steps on the event loop, in the task of whoever calls; any number of tasks may."""

    def __init__(self, http: httpx2.AsyncClient | None) -> None:
        """Closes `http` in the end only if it made it."""
        self._is_own = http is None
        self.http = http or httpx2.AsyncClient()
        self._unfinished: set[asyncio.Task[Any]] = set()

    async def run(self, steps: Steps[T]) -> T:
        async with aclosing(self.iterate(emit_result(steps))) as results:
            return await anext(results)

    async def iterate(self, steps: Items[T]) -> AsyncGenerator[T, None]:
        with closing(Flow(steps)) as flow:
            async with aclosing(_AsyncLine(self)) as line:
                while flow.step is not None:
                    if isinstance(flow.step, Emit):
                        yield flow.step.item
                        flow.give(None)
                        continue
                    try:
                        outcome = await line.take(flow.step)
                    except FAILURES as error:
                        flow.fail(error)
                    else:
                        flow.give(outcome)

    async def finish(self, steps: Steps[T]) -> T:
        """In a task of ours: what it has begun is finished when its waiter is gone."""
        task = asyncio.create_task(self.run(steps))
        self._unfinished.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            task.exception()  # also where nobody is left to hear of it

    async def close(self) -> None:
        await asyncio.gather(*self._unfinished, return_exceptions=True)
        if self._is_own:
            await self.http.aclose()


class _AsyncLine:
    """One conversation: at most one response is open at a time."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver = driver
        self._response: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes]

    async def take(self, step: Step) -> Any:
        match step:
            case Send(request):
                return await self._open(request)
            case Read():
                return await anext(self._chunks, None)
            case Load():
                return self._response and await self._response.aread()
            case Pause(seconds):
                return await asyncio.sleep(seconds)
            case Work(do):
                result = do() if inspect.iscoroutinefunction(do) else await to_thread.run_sync(do)
                return await result if inspect.isawaitable(result) else result
            case Finish(steps):
                return await self._driver.finish(steps)

    async def _open(self, request: httpx2.Request) -> httpx2.Response:
        await self.aclose()
        response = await self._driver.http.send(
            request, stream=True, auth=None, follow_redirects=False
        )
        self._response, self._chunks = response, response.aiter_bytes()
        return response

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()
