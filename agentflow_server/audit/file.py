"""The audit log in a file: appended under a lock, synced to the disk with every batch.

The file is opened anew for each batch, so it may be renamed away at any time (logrotate, with or
without `copytruncate`): the next file goes on with the hash of the last line. The server and
operators' commands may write to it side by side.
"""

import errno
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentflow_server.audit.chain import START, Chain, Link, find_link
from agentflow_server.daemon_threads import DaemonThreads
from agentflow_server.errors import ConfigError
from agentflow_server.models import AuditEvent

log = logging.getLogger(__name__)

_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class _Left:
    """How the file was when this process left it, and what its last line was."""

    inode: int
    size: int
    link: Link


class AuditFile:
    """Appends to `path`; made readable to its owner alone."""

    def __init__(self, path: Path, chain: Chain) -> None:
        self._path = path
        self._chain = chain
        self._left = _Left(-1, -1, START)
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
            with _locked(self._path) as file:
                link = self._find_link(file)
        except OSError as exc:
            raise ConfigError(
                f"observability.audit.path: {self._path} cannot be written: {exc.strerror}"
            ) from exc
        if link is None:
            raise ConfigError(
                f"observability.audit.path: {self._path} holds something else than an audit log"
            )

    def _append(self, events: Sequence[AuditEvent]) -> None:
        with _locked(self._path) as file:
            link = self._find_link(file)
            if link is None:
                raise OSError(errno.EINVAL, "not an audit log", str(self._path))
            if cut := _cut_incomplete_line(file):
                log.error("%s: the incomplete last line was removed", self._path)
                details = {"bytes": str(cut)}
                repair = AuditEvent(time.time(), "audit.repaired", "error", details=details)
                events = [repair, *events]
            lines, link = self._chain.extend(link, events)
            _write(file, "".join(f"{line}\n" for line in lines).encode())
            status = os.fstat(file)
            self._left = _Left(status.st_ino, status.st_size, link)

    def _find_link(self, file: int) -> Link | None:
        """None when there are lines, and none is of ours."""
        status = os.fstat(file)
        if not status.st_size or (status.st_ino, status.st_size) == (
            self._left.inode,
            self._left.size,
        ):
            return self._left.link
        newest_first = (line.decode("utf-8", "replace") for line in read_backwards(file))
        return find_link(newest_first)


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
def _locked(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(file)
        yield file
    finally:
        os.close(file)


if sys.platform == "win32":  # pragma: no cover – nothing like flock there: that no command of an
    # operator writes while the server does is left to him.

    def _lock(file: int) -> None: ...

else:
    import fcntl

    def _lock(file: int) -> None:
        """Waits; held until the file is closed, also by the death of the process."""
        fcntl.flock(file, fcntl.LOCK_EX)
