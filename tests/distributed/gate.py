"""A place where agents in other processes stop until the test lets them go on."""

import asyncio
from contextlib import suppress
from typing import Self

DEADLINE = 60.0


class Held:
    """An agent at the gate: in which process, and what it was asked."""

    def __init__(self, pid: int, content: str, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.content = content
        self._writer = writer

    def let_go(self) -> None:
        self._writer.close()  # whoever waited may be dead, too


class Gate:
    """Processes that are started with `GATE=gate.port` stop here."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[Held] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = str(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        self._server.close()
        await self._server.wait_closed()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        line = await reader.readline()
        if not line.endswith(b"\n"):
            return  # killed before it could say who it is
        pid, _, content = line.decode().strip().partition(" ")
        self._came.put_nowait(Held(int(pid), content, writer))

    async def wait(self) -> Held:
        """The next one that comes."""
        return await asyncio.wait_for(self._came.get(), DEADLINE)

    @property
    def is_empty(self) -> bool:
        """Nobody has come whom no `wait` returned."""
        return self._came.empty()
