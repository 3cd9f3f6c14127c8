"""A card in a file: `{"api_url": …, "token": …}`, for its owner's eyes only."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from agentflow_server import private_files, strict_json
from agentflow_server.gate.errors import BadCard, CardNotFound

MAX_BYTES = 64 * 1024
NEW_ONE = "agentflow auth card --user NAME --save-path"


class Content(NamedTuple):
    """What is on a card."""

    api_url: str
    token: str


def read_card(path: Path) -> Content:
    """Raises CardNotFound, BadCard; neither repeats what is in the file but names of members."""
    try:
        with path.open("rb") as file:
            _check_privacy(path, os.fstat(file.fileno()))
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise CardNotFound(
            f"{path.absolute()}: there is no such file; make it with: {NEW_ONE} {path}"
        ) from None
    except OSError as error:
        raise BadCard(f"{path}: cannot be read: {error.strerror}") from error
    return _parse(path, data)


def write_card(path: Path, card: Content) -> None:
    """As a whole, readable for the owner alone. A card that is there is replaced, any other file
    never. Raises BadCard, OSError."""
    if os.path.lexists(path):
        _check_replaceable(path)
    private_files.replace(path, json.dumps(card._asdict(), indent=2) + "\n")


def _check_replaceable(path: Path) -> None:
    try:
        _parse(path, path.read_bytes()[: MAX_BYTES + 1])
    except (BadCard, OSError):
        raise BadCard(f"{path}: exists already and is no card; move it away first") from None


def _check_privacy(path: Path, status: os.stat_result) -> None:
    if not private_files.is_private(status):
        raise BadCard(
            f"{path}: others can read it, and use its token; chmod 600 it, or better make a new "
            f"one: {NEW_ONE} {path}"
        )


def _parse(path: Path, data: bytes) -> Content:
    if len(data) > MAX_BYTES:
        raise BadCard(f"{path}: expected a card of at most {MAX_BYTES} bytes")
    try:
        found = strict_json.parse(data, max_depth=4)
    except ValueError as error:
        raise BadCard(f"{path}: {error}") from None
    return _read_members(path, found)


def _read_members(path: Path, found: Any) -> Content:
    expected = f'{path}: expected {{"api_url": "https://…", "token": "…"}}'
    if not isinstance(found, dict):
        raise BadCard(expected)
    # Passwords and keys that sign, for the most part: whoever reads them needs no card.
    if foreign := sorted(found.keys() - set(Content._fields)):
        names = ", ".join(name[:40] for name in foreign[:5])
        raise BadCard(f"{expected} and nothing else, found {names!a}")
    match found:
        case {"api_url": str(api_url), "token": str(token)}:
            return Content(api_url, token)
    raise BadCard(expected)
