"""Lets an application live in an event loop of its own, where nobody runs its lifespan.

`TestClient(app)` without `with` uses a new loop for every request, and a mounted sub-application
never sees a lifespan. Runs must not end with the loop of whoever happened to ask first.
"""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")


class Portal:
    """A daemon thread with an event loop in which `lifespan` is entered once."""

    def __init__(
        self, app: ASGIApp, lifespan: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self._app = app
        self._lifespan = lifespan
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of the calling loop. Raises what entering the lifespan raises."""
        home = await asyncio.to_thread(self._open)
        caller = asyncio.get_running_loop()

        async def receive_there() -> Message:
            return await _run_in(caller, receive())

        async def send_there(message: Message) -> None:
            await _run_in(caller, send(message))

        await _run_in(home, self._app(scope, receive_there, send_there))

    def close(self) -> None:
        """Leave the lifespan and end the thread; nothing happens if it is not open."""
        with self._lock:
            if self._loop is None or self._thread is None:
                return
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._loop = self._thread = None
            atexit.unregister(self.close)

    def _open(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                opened: Future[asyncio.AbstractEventLoop] = Future()
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._live(opened)), name="agentflow", daemon=True
                )
                self._thread.start()
                self._loop = opened.result()
                atexit.register(self.close)
            return self._loop

    async def _live(self, opened: "Future[asyncio.AbstractEventLoop]") -> None:
        self._stop = asyncio.Event()
        try:
            async with self._lifespan():
                opened.set_result(asyncio.get_running_loop())
                await self._stop.wait()
        except BaseException as exc:
            if opened.done():
                raise
            opened.set_exception(exc)  # raised where the request is waiting


async def _run_in(loop: asyncio.AbstractEventLoop, work: Awaitable[T]) -> T:
    async def run() -> T:
        return await work

    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), loop))
