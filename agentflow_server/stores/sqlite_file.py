"""Opening a SQLite file: its folder, its lock, its connections."""

import errno
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentflow_server.errors import ConfigError, DatabaseInUse
from agentflow_server.stores.migrate import (
    Condition,
    Migration,
    find_missing,
    load_migrations,
    migrate_sqlite,
    refuse_upgrade,
)
from agentflow_server.stores.rows import now
from agentflow_server.stores.sqlite_idempotency import prune

_READERS = 3
_BUSY_TIMEOUT = 5.0
_FOLDER = "is a folder, expected a database file"


@dataclass(frozen=True, slots=True)
class OpenFile:
    """The connections to a migrated database; the lock, if there is one, is held until `close`."""

    writer: sqlite3.Connection
    readers: list[sqlite3.Connection]
    closing: ExitStack

    def close(self) -> None:
        """Close the connections, the writing one last (it tidies the file up), and unlock."""
        self.closing.close()


def open_file(path: Path, *, exclusive: bool = True, upgrades: bool = True) -> OpenFile:
    """Create or open the database, and migrate it; unless this `upgrades`, only an empty one.

    Not `exclusive`: beside a server, if there is one, whose file is then not migrated.
    Raises ConfigError, in one line: the path is a folder, cannot be written, is in use, is not up
    to date, or holds something else than a database of ours.
    """
    path = path.resolve()
    with _naming_the_file(path), ExitStack() as stack:
        _make_folder(path)
        if exclusive:
            stack.enter_context(_locked(path))
        _make_file(path)
        writer = _connect(path.as_uri())
        stack.callback(writer.close)
        # First, so that nothing is changed in a file that is not ours.
        migrations = load_migrations("sqlite")
        missing = find_missing(writer, migrations)
        if not upgrades:
            refuse_upgrade(missing, migrations)
        if exclusive:
            migrate_sqlite(writer, migrations)
        elif missing:
            _migrate_unused(path, writer, migrations)
        _configure(writer)
        if exclusive:
            prune(writer, now(), limit=-1)
        readers = []
        for _ in range(_READERS):
            reader = _connect(f"{path.as_uri()}?mode=ro")
            stack.callback(reader.close)
            readers.append(reader)
        return OpenFile(writer, readers, stack.pop_all())


def examine(path: Path) -> Condition:
    """Changes nothing, and makes no file. Raises ConfigError, in one line."""
    path = path.resolve()
    migrations = load_migrations("sqlite")
    newest = migrations[-1].version
    with _naming_the_file(path):
        if path.is_dir():
            raise ConfigError(_FOLDER)
        if not path.exists():
            return Condition(0, newest, 0)
        with closing(_connect(f"{path.as_uri()}?mode=rw")) as connection:
            missing = find_missing(connection, migrations)
        files = (path, path.with_name(f"{path.name}-wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
    return Condition(newest - len(missing), newest, size)


@contextmanager
def _naming_the_file(path: Path) -> Iterator[None]:
    """Raises ConfigError for whatever is wrong with the database."""
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"{path}: the database cannot be written: {exc.strerror}") from exc
    except sqlite3.Error as exc:
        raise ConfigError(f"{path}: SQLite cannot use this as a database: {exc}") from exc
    except ConfigError as exc:
        raise type(exc)(f"{path}: {exc}") from exc


def _make_folder(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(_FOLDER)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make_file(path: Path) -> None:
    """Private, as SQLite gives its -wal and -shm files the permissions of the database."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # Not opened to find out: closing it again would drop the locks that SQLite holds on it
        # for other connections of this process.
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _migrate_unused(
    path: Path, connection: sqlite3.Connection, migrations: Sequence[Migration]
) -> None:
    try:
        with _locked(path):
            migrate_sqlite(connection, migrations)
    except DatabaseInUse:
        raise ConfigError(
            "is in use by an agentflow server of an older version, or by one that is just "
            "starting: (re)start it with this version, then try again"
        ) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Raises ConfigError when another server has the file."""
    lock = os.open(
        path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        _lock(lock)
        yield
    finally:
        os.close(lock)


if sys.platform == "win32":  # pragma: no cover – nothing like flock there: one server per file is
    # left to the administrator, as SQLite's own locks still keep the file whole.

    def _lock(descriptor: int) -> None: ...

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        """Held until the descriptor is closed, also by the death of the process."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseInUse("is in use by another agentflow server") from None


def _connect(uri: str) -> sqlite3.Connection:
    # Opened here, used by one thread of ours each, closed here again.
    return sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        timeout=_BUSY_TIMEOUT,
        check_same_thread=False,
        cached_statements=256,
    )


def _configure(writer: sqlite3.Connection) -> None:
    (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":  # pragma: no cover – a file system without shared memory
        raise ConfigError(f"SQLite's WAL is not possible there (found {mode!r})")
    writer.execute("PRAGMA synchronous = FULL")
    writer.execute("PRAGMA foreign_keys = ON")
    # SQLite's own 2 MB would spill a busy hour's index pages; used only as far as needed.
    writer.execute("PRAGMA cache_size = -16000")
    # A WAL that a long read made large is cut back afterwards.
    writer.execute("PRAGMA journal_size_limit = 67108864")
