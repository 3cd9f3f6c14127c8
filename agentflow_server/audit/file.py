"""The audit log in a file: appended under a lock, synced to the disk with every batch.

The file is opened anew for each batch, so it may be renamed away at any time (logrotate, with or
without `copytruncate`): the next file goes on with the hash of the last line, whoever begins it.
The server and operators' commands may write to it side by side.
"""

import errno
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agentflow_server.audit.bookmark import Bookmark, Mark, open_bookmark
from agentflow_server.audit.chain import Chain, Link, find_link
from agentflow_server.audit.end import End
from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.errors import ConfigError
from agentflow_server.models import AuditEvent

log = logging.getLogger(__name__)

_BLOCK = 65_536


class AuditFile:
    """Appends to `path`; made readable to its owner alone."""

    def __init__(self, path: Path, chain: Chain) -> None:
        self._path = path
        self._chain = chain
        self._threads = DaemonThreads(1)

    async def open(self) -> None:
        """Raises ConfigError when the file cannot be written or holds something else."""
        await self._threads.run(self._check)

    async def append(self, events: Sequence[AuditEvent]) -> None:
        """Raises OSError; then the file is as it was."""
        await self._threads.run(lambda: self._append(events))

    def _check(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_bookmark(self._path) as bookmark, _opened(self._path) as file:
                mark = bookmark.read()
                end = self._find_end(file, mark)
                if end is not None:
                    # What is missing is reported with the first lines: until then it is noted.
                    bookmark.write(mark if end.is_cut else _mark(file, end.link))
        except OSError as exc:
            raise ConfigError(
                f"observability.audit.path: {exc.filename or self._path} cannot be written: "
                f"{exc.strerror}"
            ) from exc
        if end is None:
            raise ConfigError(
                f"observability.audit.path: {self._path} holds something else than an audit log"
            )

    def _append(self, events: Sequence[AuditEvent]) -> None:
        with open_bookmark(self._path) as bookmark, _opened(self._path) as file:
            end = self._find_end(file, bookmark.read())
            if end is None:
                raise OSError(errno.EINVAL, "not an audit log", str(self._path))
            if end.is_cut:
                log.error("%s: lines at its end were removed by somebody else", self._path)
            events = [*self._repair(file), *end.report(), *events]
            lines, link = self._chain.extend(end.link, events)
            _write(file, "".join(f"{line}\n" for line in lines).encode())
            self._leave(bookmark, _mark(file, link))

    def _repair(self, file: int) -> Sequence[AuditEvent]:
        cut = _cut_incomplete_line(file)
        if not cut:
            return ()
        log.error("%s: the incomplete last line was removed", self._path)
        details = {"bytes": str(cut)}
        return [AuditEvent(time.time(), "audit.repaired", "error", details=details)]

    def _leave(self, bookmark: Bookmark, mark: Mark) -> None:
        try:
            bookmark.write(mark)
        except OSError:
            # The lines are written; if this were passed on, they would be written again.
            log.exception("%s: the end of the chain could not be noted", self._path)

    def _find_end(self, file: int, mark: Mark) -> End | None:
        """None when it is not our file: there are lines, and none is of ours."""
        status = os.fstat(file)
        found: Link | None = mark.link
        if status.st_size == 0:
            found = self._find_in_renamed(mark) or mark.link
        elif (status.st_ino, status.st_size) != (mark.inode, mark.size):
            found = _find_last(file)
        return None if found is None else End(found, mark.link)

    def _find_in_renamed(self, mark: Mark) -> Link | None:
        """What a writer that died before it could leave its mark has still written, if anything."""
        for path in self._path.parent.iterdir():
            with suppress(OSError):
                status = path.lstat()
                if status.st_ino == mark.inode and status.st_size > mark.size:
                    with path.open("rb") as file:
                        return _find_last(file.fileno())
        return None


def _mark(file: int, link: Link) -> Mark:
    status = os.fstat(file)
    return Mark(status.st_ino, status.st_size, link)


def _find_last(file: int) -> Link | None:
    return find_link(line.decode("utf-8", "replace") for line in read_backwards(file))


def read_backwards(file: int, *, end: int | None = None) -> Iterator[bytes]:
    """The complete lines of an open file, the newest first, from the byte `end` on."""
    position = os.fstat(file).st_size if end is None else end
    rest, complete = b"", False
    while position > 0:
        length = min(_BLOCK, position)
        position -= length
        first, *others = (os.pread(file, length, position) + rest).split(b"\n")
        while others:
            line = others.pop()
            if complete:
                yield line
            complete = True
        rest = first
    if complete:
        yield rest


def _cut_incomplete_line(file: int) -> int:
    """Remove what a power failure left of a line; how many bytes that were."""
    size = position = os.fstat(file).st_size
    while position > 0:
        length = min(_BLOCK, position)
        position -= length
        newline = os.pread(file, length, position).rfind(b"\n")
        if newline >= 0:
            position += newline + 1
            break
    if position < size:
        os.ftruncate(file, position)
    return size - position


def _write(file: int, data: bytes) -> None:
    """All or nothing, and on the disk."""
    size = os.fstat(file).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)
