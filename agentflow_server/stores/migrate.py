"""Numbered SQL files → an up-to-date database."""

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from agentflow_server.errors import ConfigError, DatabaseOutdated
from agentflow_server.stores.rows import now

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

APPLICATION_ID = 1095190092
"""What the first migration writes into a SQLite file, so that no other program's is taken."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Condition:
    """How a database is found: `version` of its schema, 0 if there is none yet, `newest` is what
    is needed, `size` in bytes."""

    version: int
    newest: int
    size: int

    @property
    def is_up_to_date(self) -> bool:
        return self.version == self.newest


def load_migrations(dialect: str) -> Sequence[Migration]:
    """The migrations of `sql/<dialect>/`, the oldest first; versions count from 1."""
    found = []
    for file in (files("agentflow_server.stores") / "sql" / dialect).iterdir():
        if match := _FILE_NAME.fullmatch(file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def migrate_sqlite(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Apply what is missing, each migration in one transaction with its version.

    The caller holds the lock of the file. Raises ConfigError as `find_missing` does.
    """
    for migration in find_missing(connection, migrations):
        _apply(connection, migration)


def find_missing(
    connection: sqlite3.Connection, migrations: Sequence[Migration]
) -> Sequence[Migration]:
    """The migrations that the database has not seen.

    Raises ConfigError when the database is another program's or newer than the migrations.
    """
    version = _find_version(connection)
    newest = migrations[-1].version
    if version > newest:
        raise ConfigError(
            f"the database was made by a newer agentflow-server (its schema is {version}, "
            f"this one knows up to {newest})"
        )
    return migrations[version:]


def refuse_upgrade(missing: Sequence[Migration], migrations: Sequence[Migration]) -> None:
    """An empty database is nobody's yet, and may be made. Raises DatabaseOutdated."""
    if 0 < len(missing) < len(migrations):
        raise DatabaseOutdated(
            f"its schema is {missing[0].version - 1}, this version of agentflow-server needs "
            f'{migrations[-1].version}; "agentflow db upgrade" brings it there'
        )


def _find_version(connection: sqlite3.Connection) -> int:
    # One snapshot for all questions: a server may be making the database at this moment.
    connection.execute("BEGIN")
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        if application_id == APPLICATION_ID:
            (version,) = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
            return int(version)
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone() or application_id:
            raise ConfigError("the database belongs to another program")
        return 0
    finally:
        connection.execute("ROLLBACK")


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    # `executescript` ends an open transaction, so the script brings its own.
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{migration.sql}\n"
            "INSERT INTO schema_migrations (version, name, applied_at) "
            f"VALUES ({migration.version}, '{migration.name}', {now()});\nCOMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
