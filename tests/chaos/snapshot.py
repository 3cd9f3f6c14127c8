"""What is on the disk. A dead server's files are copied: the next one shall find them untouched."""

import json
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Row = dict[str, Any]
FINAL = frozenset({"success", "error", "cancelled", "timeout"})


@dataclass
class Snapshot:
    problems: list[str]
    """What SQLite itself says."""
    threads: dict[str, Row]
    runs: dict[str, Row]
    messages: dict[str, list[Row]]
    """run_id → its turn, in order."""
    events: dict[str, list[Row]]
    keys: list[Row]
    graph_threads: set[str]
    """Threads of which LangGraph keeps something."""
    trace: list[list[str]]

    def answers(self, run_id: str) -> list[Row]:
        return json.loads(self.runs[run_id]["answers"] or "[]")

    def content(self, run_id: str) -> str | None:
        turn = self.messages.get(run_id)
        return turn[0]["content"] if turn else None


def look_at_the_living(folder: Path) -> Snapshot:
    """While a server has the file; another reader changes nothing for it."""
    database = folder / ".agentflow" / "agentflow.db"
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("BEGIN")
        return _read(connection, folder / "trace.log")
    finally:
        connection.close()


def look_at_the_dead(folder: Path) -> Snapshot:
    database = folder / ".agentflow" / "agentflow.db"
    with TemporaryDirectory(dir=folder) as scratch:
        for file in database.parent.glob("agentflow.db*"):
            if not file.name.endswith((".lock", "-shm")):
                shutil.copy(file, scratch)
        connection = sqlite3.connect(Path(scratch, database.name))
        try:
            return _read(connection, folder / "trace.log")
        finally:
            connection.close()


def _read(connection: sqlite3.Connection, trace: Path) -> Snapshot:
    """What SQLite has."""
    connection.row_factory = lambda cursor, row: dict(
        zip([column[0] for column in cursor.description], row, strict=True)
    )

    def rows(sql: str) -> list[Row]:
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.OperationalError as exc:
            if "no such table" in str(exc):  # killed before it was made
                return []
            raise

    problems = [str(row) for row in rows("PRAGMA integrity_check")]
    problems.remove("{'integrity_check': 'ok'}")
    problems += [str(row) for row in rows("PRAGMA foreign_key_check")]
    return build(rows, trace, problems, of_graphs=("checkpoints", "writes"))


def build(
    rows: Callable[[str], list[Row]], trace: Path, problems: list[str], *, of_graphs: Sequence[str]
) -> Snapshot:
    """`rows` asks the database; `of_graphs` are LangGraph's tables."""
    messages: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows("SELECT * FROM messages ORDER BY thread_id, turn, position"):
        row["content"] = json.loads(row["content"])
        messages[row["run_id"]].append(row)
    events: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows("SELECT * FROM run_events ORDER BY run_id, seq"):
        events[row["run_id"]].append(row)
    remembered = " UNION ".join(f"SELECT thread_id FROM {table}" for table in of_graphs)
    return Snapshot(
        problems,
        {row["thread_id"]: row for row in rows("SELECT * FROM threads")},
        {row["run_id"]: row for row in rows("SELECT * FROM runs ORDER BY thread_id, turn")},
        dict(messages),
        dict(events),
        rows("SELECT * FROM idempotency"),
        {row["thread_id"] for row in rows(remembered)},
        [line.split() for line in trace.read_text().splitlines()] if trace.exists() else [],
    )
