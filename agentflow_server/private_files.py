"""Files with secrets in them: readable for their owner alone, and never half written."""

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

_NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


def is_private(status: os.stat_result) -> bool:
    """Whether its owner alone can read it; where modes do not say so, its folder does."""
    return os.name != "posix" or not status.st_mode & 0o077


def replace(path: Path, text: str) -> None:
    """All of it or nothing, also when the power fails. Makes the folder, too. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 – a descriptor
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        with suppress(OSError):
            Path(name).unlink()
        raise


def append(path: Path, text: str) -> None:
    """All of it or nothing; the file is made if it is missing, and its owner stays. Raises OSError,
    PermissionError also for a file that others can read, or that is somewhere else."""
    if path.is_symlink():
        raise PermissionError(errno.EPERM, "it is a symbolic link", str(path))
    # Not for writing alone: a pipe would wait for its reader.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_FOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, "it is no regular file", str(path))
        if not is_private(status):
            raise PermissionError(errno.EPERM, "others can read it; chmod 600 it first", str(path))
        _append(descriptor, text.encode(), status.st_size)
    finally:
        os.close(descriptor)


def _append(descriptor: int, data: bytes, size: int) -> None:
    try:
        written = os.write(descriptor, data)
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    if written < len(data):
        os.ftruncate(descriptor, size)  # half a line would be half a secret
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
