"""How many statements a database is sent: PostgreSQL writes each into its log."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.postgres_server import PostgresServer

_STATEMENT = re.compile(rb"LOG:  (?:statement|execute )")


@dataclass(frozen=True, slots=True)
class StatementLog:
    path: Path

    @classmethod
    def of(cls, postgres: PostgresServer, url: str) -> Self:
        """Of the database at `url`, for connections that are made from now on."""
        name = url.rpartition("/")[2]
        # What is set for a database beats the command line, where the tests ask for silence.
        for setting in ("log_statement = 'all'", "log_min_messages = 'log'"):
            postgres.execute(f"ALTER DATABASE {name} SET {setting}")
        return cls(postgres.folder / "log")

    def count(self) -> int:
        """Since the server was started."""
        return len(_STATEMENT.findall(self.path.read_bytes()))
