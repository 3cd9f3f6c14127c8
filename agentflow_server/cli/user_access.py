"""`agentflow users disable`, `enable`, `set-password` and `remove`: who may log in."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from agentflow_server.cli.acts import Act
from agentflow_server.cli.failures import explained
from agentflow_server.cli.new_passwords import read_new_password
from agentflow_server.cli.operating import load_for_operator, tell, use_database
from agentflow_server.cli.revoking import revoke_all
from agentflow_server.cli.user_lookup import change_user, describe, fail_unknown, find_user
from agentflow_server.cli.users import SHOWN_ONCE
from agentflow_server.databases import Database
from agentflow_server.errors import NotFound
from agentflow_server.models import Revocation, User, UserChange
from agentflow_server.users import open_passwords

KEEP_SECONDS = 30 * 86_400
"""For how long older tokens are remembered as refused: longer than any is valid."""

_REFUSED = "His tokens are refused within 60 seconds by a server that runs, and at once by one that starts."


class _Ended(NamedTuple):
    """How many of his."""

    logins: int
    keys: int

    def lines(self) -> Iterator[str]:
        if self.logins:
            yield f"Logins ended: {self.logins}"
        if self.keys:
            yield f"API keys revoked for ever: {self.keys}"


Change = Callable[[Database, User], Awaitable[None]]


def disable_user(config: Path | None, database: str | None, name: str) -> None:
    async def disable(opened: Database, user: User) -> None:
        await opened.users.update_user(user.user_id, UserChange(disabled=True))

    _change_and_revoke(config, database, name, disable, act="user.disable", told="Disabled.")


def enable_user(config: Path | None, database: str | None, name: str) -> None:
    async def enable(opened: Database, user: User) -> tuple[User, Sequence[Act]]:
        enabled = await opened.users.update_user(user.user_id, UserChange(disabled=False))
        return enabled, [Act("user.enable", describe(user))]

    def show(user: User) -> None:
        tell("Enabled; tokens and API keys that were refused stay so.")
        if user.password_changed_at is None:
            tell(f'He has no password: "agentflow users set-password {user.username}"')

    change_user(config, database, name, enable, show=show)


def remove_user(config: Path | None, database: str | None, name: str) -> None:
    async def remove(opened: Database, user: User) -> None:
        await opened.users.remove_user(user.user_id)

    told = "Removed. His threads stay; a new user of that name has another id, and not these."
    _change_and_revoke(config, database, name, remove, act="user.remove", told=told)


def replace_password(
    config: Path | None, database: str | None, name: str, *, generate: bool, from_stdin: bool
) -> None:
    """A password that was made, and nothing else, goes to stdout."""
    loaded = load_for_operator(config, database)
    with explained():
        passwords = open_passwords()
    try:
        username = use_database(loaded, lambda opened: find_user(opened, name)).username
    except NotFound:
        fail_unknown()
    with explained():
        password = read_new_password(
            loaded, username=username, generate=generate, from_stdin=from_stdin
        )

    async def replace(opened: Database, user: User) -> None:
        change = UserChange(password_hash=await passwords.hash(password))
        await opened.users.update_user(user.user_id, change)

    def show_password() -> None:
        if generate:
            typer.echo(password)
            tell(SHOWN_ONCE)

    _change_and_revoke(
        config,
        database,
        name,
        replace,
        act="user.set_password",
        told=f"{username} has a new password.",
        show_first=show_password,
    )


def _change_and_revoke(
    config: Path | None,
    database: str | None,
    name: str,
    change: Change,
    *,
    act: str,
    told: str,
    show_first: Callable[[], None] = lambda: None,
) -> None:
    async def change_first(opened: Database, user: User) -> tuple[_Ended, Sequence[Act]]:
        # In this order: what is issued until the change is made is older than the revocation.
        await change(opened, user)
        now = time.time()
        revocation = Revocation(at=now, expires_at=now + KEEP_SECONDS, user_id=user.user_id)
        logins = await opened.grants.revoke_user_grants(user.user_id)
        keys, acts = await revoke_all(opened.credentials, revocation, now)
        return _Ended(logins, keys), [Act(act, describe(user)), *acts]

    def show(ended: _Ended) -> None:
        show_first()
        tell(told, _REFUSED, *ended.lines())

    change_user(config, database, name, change_first, show=show)
