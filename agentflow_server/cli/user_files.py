"""Files of users: JSON lines or CSV, one user a line."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agentflow_server import strict_json
from agentflow_server.errors import ConfigError
from agentflow_server.models import User, UserSecrets
from agentflow_server.users.hashes import check_foreign_hash
from agentflow_server.users.making import make_user

MAX_BYTES = 16_000_000
MAX_USERS = 10_000
MAX_PROBLEMS = 20

_MAX_DEPTH = 12


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    username: str
    roles: list[str] = []
    scopes: list[str] = []
    claims: dict[str, Any] = {}
    password_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A user, and in which line of the file he is."""

    line: int
    user: User
    secrets: UserSecrets


def read_users(file: Path, created_at: datetime) -> list[Entry]:
    """Raises ConfigError with one problem a line; none repeats what is in the file but names."""
    text = _read_text(file)
    read = {".jsonl": _read_lines, ".ndjson": _read_lines, ".csv": _read_rows}.get(file.suffix)
    if read is None:
        raise ConfigError(f"{file}: expected a name that ends in .jsonl or .csv")
    entries: dict[str, Entry] = {}
    problems = []
    for line, members in read(text):
        try:
            _collect(entries, _make_entry(line, members, created_at))
        except ValueError as exc:
            problems.append(f"{file}, line {line}: {_explain(exc)}")
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"{file}: and {len(problems) - MAX_PROBLEMS} more problems"]
    if not problems and not 0 < len(entries) <= MAX_USERS:
        problems = [f"{file}: expected 1 to {MAX_USERS} users, found {len(entries)}"]
    if problems:
        raise ConfigError(*problems)
    return list(entries.values())


def _read_text(file: Path) -> str:
    """Raises ConfigError."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{file}: expected at most {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")  # spreadsheets begin with a mark
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: expected text in UTF-8") from None


def _read_lines(text: str) -> Iterator[tuple[int, Any]]:
    """The number and the value of each line; a ValueError where there is none."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, strict_json.parse(line.encode(), max_depth=_MAX_DEPTH)
            except ValueError as exc:
                yield number, exc


def _read_rows(text: str) -> Iterator[tuple[int, Any]]:
    """The same of a CSV file, whose first line names the columns."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for row in reader:
            if not header:
                header = row
            elif row:
                yield reader.line_num, _read_row(header, row)
    except csv.Error as exc:
        yield reader.line_num, ValueError(f"not CSV: {exc}")


def _read_row(header: list[str], row: list[str]) -> Mapping[str, Any] | ValueError:
    if len(row) != len(header) or len(set(header)) != len(header):
        return ValueError(f"expected a value for each of the columns {', '.join(header)}, once")
    members: dict[str, Any] = {name: cell for name, cell in zip(header, row, strict=True) if cell}
    for name in ("roles", "scopes"):
        if name in members:
            members[name] = members[name].split()
    if "claims" in members:
        try:
            members["claims"] = strict_json.parse(members["claims"].encode(), max_depth=_MAX_DEPTH)
        except ValueError as exc:
            return ValueError(f"claims: {exc}")
    return members


def _make_entry(number: int, members: Any, created_at: datetime) -> Entry:
    """Raises ValueError."""
    if isinstance(members, ValueError):
        raise members
    line = _Line.model_validate(members)
    if line.password_hash is not None:
        check_foreign_hash(line.password_hash)
    user = make_user(
        line.username,
        roles=line.roles,
        scopes=line.scopes,
        claims=line.claims,
        created_at=created_at,
        has_password=line.password_hash is not None,
    )
    return Entry(number, user, UserSecrets(line.password_hash))


def _collect(entries: dict[str, Entry], entry: Entry) -> None:
    """Raises ValueError."""
    name = entry.user.username
    if name in entries:
        raise ValueError(f"{name!r} is in line {entries[name].line} already")
    entries[name] = entry


def _explain(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    known = ", ".join(_Line.model_fields)
    reason = f"unknown; expected {known}" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{place}: {reason}" if place else reason
