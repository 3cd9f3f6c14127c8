"""The lines of an audit log, for operators' commands that run beside the server."""

import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from agentflow_server.audit.bookmark import read_mark
from agentflow_server.audit.chain import START, Link
from agentflow_server.audit.file import read_backwards
from agentflow_server.audit.table import AuditTable, read_link
from agentflow_server.errors import ConfigError

_PAGE = 500


class AuditReader(Protocol):
    """Knows the end of the log as it was when the reader was made."""

    @property
    def name(self) -> str: ...

    @property
    def noted(self) -> Link:
        """The last line that had been written, as far as that is known; else START."""

    def oldest_first(self) -> AsyncIterator[tuple[str, str]]:
        """(where it is, line); with what was appended meanwhile."""

    def newest_first(self) -> AsyncIterator[str]:
        """The lines up to that end."""

    async def news(self) -> Sequence[str]:
        """The lines after that end, or after the last call."""


class FileReader:
    """Follows the file when it is renamed away and a new one begins."""

    def __init__(self, path: Path, closing: ExitStack) -> None:
        """Raises ConfigError. `closing` closes the file."""
        self.name = str(path)
        self._path = path
        self._closing = closing
        # First, because a server that writes on notes lines that are not read here.
        self.noted = self._read_noted()
        self._open()
        self._end = self._position = os.fstat(self._file).st_size

    def _read_noted(self) -> Link:
        try:
            return read_mark(self._path).link
        except OSError as exc:
            raise ConfigError(f"{exc.filename}: cannot be read: {exc.strerror}") from exc

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise ConfigError(f"{self._path}: cannot be read: {exc.strerror}") from exc
        self._closing.callback(os.close, self._file)

    async def oldest_first(self) -> AsyncIterator[tuple[str, str]]:
        with open(self._file, "rb", closefd=False) as file:  # noqa: ASYNC230 – a command
            file.seek(0)
            for number, line in enumerate(file, start=1):
                yield f"{self._path}:{number}", _text(line.removesuffix(b"\n"))

    async def newest_first(self) -> AsyncIterator[str]:
        for line in read_backwards(self._file, end=self._end):
            yield _text(line)

    async def news(self) -> Sequence[str]:
        lines = self._read_on()
        if self._was_replaced():
            self._open()
            self._position = 0
            lines += self._read_on()
        return lines

    def _read_on(self) -> list[str]:
        if os.fstat(self._file).st_size < self._position:  # copied and cut back to nothing
            self._position = 0
        lines: list[str] = []
        while block := os.pread(self._file, 1 << 20, self._position):
            complete, newline, _ = block.rpartition(b"\n")
            if not newline:
                break
            self._position += len(complete) + 1
            lines += map(_text, complete.split(b"\n"))
        return lines

    def _was_replaced(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return False


class TableReader:
    """Reads page by page."""

    name = "audit_log"

    def __init__(self, table: AuditTable, end: int, noted: Link) -> None:
        self.noted = noted
        self._table = table
        self._end = self._position = end

    @classmethod
    async def make(cls, table: AuditTable) -> "TableReader":
        noted = read_link(await table.read_head())  # first, as above
        newest = await table.read_before(None, 1)
        return cls(table, newest[0][0] if newest else 0, noted or START)

    async def oldest_first(self) -> AsyncIterator[tuple[str, str]]:
        position = 0
        while page := await self._table.read_after(position, _PAGE):
            position = page[-1][0]
            for number, line in page:
                yield f"row {number}", line

    async def newest_first(self) -> AsyncIterator[str]:
        position = self._end + 1
        while page := await self._table.read_before(position, _PAGE):
            position = page[-1][0]
            for _, line in page:
                yield line

    async def news(self) -> Sequence[str]:
        lines: deque[str] = deque()
        while page := await self._table.read_after(self._position, _PAGE):
            self._position = page[-1][0]
            lines.extend(line for _, line in page)
        return list(lines)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
