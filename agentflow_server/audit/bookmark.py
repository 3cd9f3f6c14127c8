"""Where the chain ended, kept beside the log: the log itself may be rotated away at any time."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentflow_server.audit.chain import START, Link

_FORM = re.compile(rb"([0-9]{20}) ([0-9]{20}) ([0-9]{18}) ([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class Mark:
    """How the log was when its last writer left it, and what its last line was."""

    inode: int
    size: int
    link: Link


_NO_MARK = Mark(0, 0, START)


class Bookmark:
    """The hidden file `.NAME.head`; as it stays when the log is renamed, it is the writers' lock."""

    def __init__(self, file: int) -> None:
        self._file = file

    def read(self) -> Mark:
        return _parse(os.pread(self._file, 4096, 0))

    def write(self, mark: Mark) -> None:
        """Raises OSError. Always as long as before, and far less than a sector: never torn."""
        text = f"{mark.inode:020} {mark.size:020} {mark.link.seq:018} {mark.link.hash}\n"
        os.pwrite(self._file, text.encode(), 0)
        os.ftruncate(self._file, len(text))
        os.fsync(self._file)


def _parse(text: bytes) -> Mark:
    match = _FORM.fullmatch(text)
    if match is None:
        return _NO_MARK
    inode, size, seq, digest = match.groups()
    return Mark(int(inode), int(size), Link(int(seq), digest.decode()))


def read_mark(log: Path) -> Mark:
    """That of the log, for who only reads it. Raises OSError."""
    try:
        return _parse(_path_of(log).read_bytes())
    except FileNotFoundError:
        return _NO_MARK


def _path_of(log: Path) -> Path:
    return log.with_name(f".{log.name}.head")


@contextmanager
def open_bookmark(log: Path) -> Iterator[Bookmark]:
    """That of the log, with the exclusive right to write to both. Waits; raises OSError."""
    file = os.open(_path_of(log), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(file)
        yield Bookmark(file)
    finally:
        os.close(file)


if sys.platform == "win32":  # pragma: no cover – nothing like flock there: that no command of an
    # operator writes while the server does is left to him.

    def _lock(file: int) -> None: ...

else:
    import fcntl

    def _lock(file: int) -> None:
        """Held until the file is closed, also by the death of the process."""
        fcntl.flock(file, fcntl.LOCK_EX)
