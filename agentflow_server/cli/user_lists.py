"""`agentflow users list` and `show`: never a hash, never a second factor."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from agentflow_server.cli.operating import load_for_operator, tell, use_database
from agentflow_server.cli.tables import NOTHING, format_time, tabulate
from agentflow_server.cli.user_lookup import fail_unknown, find_user
from agentflow_server.databases import Database
from agentflow_server.errors import NotFound
from agentflow_server.models import User

_COLUMNS = ("USERNAME", "USER ID", "STATE", "CREATED", "ROLES", "SCOPES")
_PAGE = 500


def list_users(config: Path | None, database: str | None, *, as_json: bool) -> None:
    async def read(opened: Database) -> Sequence[User]:
        page = await opened.users.list_users(limit=_PAGE)
        found = page.data
        while page.next_cursor is not None:
            page = await opened.users.list_users(limit=_PAGE, cursor=page.next_cursor)
            found += page.data
        return found

    found = use_database(load_for_operator(config, database), read)
    if as_json:
        typer.echo(json.dumps([user.model_dump(mode="json") for user in found], indent=2))
    elif found:
        typer.echo(tabulate([_COLUMNS, *map(_describe, found)]))
    else:
        tell("There are no users.")


def show_user(config: Path | None, database: str | None, name: str, *, as_json: bool) -> None:
    loaded = load_for_operator(config, database)
    try:
        user = use_database(loaded, lambda opened: find_user(opened, name))
    except NotFound:
        fail_unknown()
    facts = user.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        lines = [("state", _find_state(user)), *((name, _plain(facts[name])) for name in facts)]
        typer.echo(tabulate([line for line in lines if line[1]]))


def _describe(user: User) -> Sequence[str]:
    words = (" ".join(some) or NOTHING for some in (user.roles, user.scopes))
    created = format_time(user.created_at)
    return user.username, user.user_id, _find_state(user), created, *words


def _find_state(user: User) -> str:
    if user.disabled_at is not None:
        return "disabled"
    return "enabled" if user.password_changed_at else "no password"


def _plain(value: Any) -> str:
    match value:
        case None:
            return ""
        case [*words]:
            return " ".join(words)
        case str():
            return value
    return json.dumps(value, ensure_ascii=False)
