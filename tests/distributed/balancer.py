"""A load balancer as the simplest ones are: it hands connections on, to servers that are ready.

It never looks into what it hands on. A connection that is refused goes to the next server; nothing
is ever sent twice.
"""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Self

import httpx2

CHECK_SECONDS = 0.1


class Balancer:
    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._turns = itertools.cycle(range(len(urls)))
        self._ready = dict.fromkeys(urls, True)
        self._changed = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self.counts = dict.fromkeys(urls, 0)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._checking = [asyncio.create_task(self._check(url)) for url in self._urls]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        tasks = {*self._checking, *self._connections}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def wait_until(self, url: str, *, ready: bool) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: self._ready[url] is ready)

    async def _check(self, url: str) -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=5) as http:
            while True:
                try:
                    ready = (await http.get("/health/ready")).status_code == 200
                except httpx2.TransportError:
                    ready = False
                async with self._changed:
                    self._ready[url] = ready
                    self._changed.notify_all()
                await asyncio.sleep(CHECK_SECONDS)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with ExitStack() as stack:
            stack.callback(writer.close)
            if there := await self._find():
                stack.callback(there[1].close)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_hand_on(reader, there[1]))
                    group.create_task(_hand_on(there[0], writer))

    async def _find(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._urls:
            url = self._urls[next(self._turns)]
            if self._ready[url]:
                with suppress(ConnectionRefusedError):
                    host, _, port = url.removeprefix("http://").partition(":")
                    connection = await asyncio.open_connection(host, int(port))
                    self.counts[url] += 1
                    return connection
        return None


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has said all it has to say."""
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
        await writer.drain()
