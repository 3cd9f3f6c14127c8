"""`agentflow users add` and `update`: who is there, and what he may do."""

from collections.abc import Sequence
from pathlib import Path

import typer

from agentflow_server.cli.acts import Act
from agentflow_server.cli.failures import explained, fail
from agentflow_server.cli.new_passwords import read_new_password
from agentflow_server.cli.operating import change_database, load_for_operator, tell
from agentflow_server.cli.user_facts import build_change, build_user, tell_facts
from agentflow_server.cli.user_lookup import IMPOSSIBLE, change_user, describe
from agentflow_server.databases import Database
from agentflow_server.errors import IdTaken
from agentflow_server.models import User, UserSecrets
from agentflow_server.users import open_passwords

SHOWN_ONCE = "The password is shown only now: the database holds a hash of it."


def add_user(
    config: Path | None,
    database: str | None,
    *,
    username: str,
    roles: Sequence[str],
    scopes: Sequence[str],
    claims: Sequence[str],
    generate: bool,
    from_stdin: bool,
) -> None:
    """A password that was made, and nothing else, goes to stdout."""
    loaded = load_for_operator(config, database)
    with explained():
        # Whatever else may be wrong is found before somebody has typed a password.
        user = build_user(loaded, username, roles=roles, scopes=scopes, claims=claims)
        passwords = open_passwords()
        password = read_new_password(
            loaded, username=user.username, generate=generate, from_stdin=from_stdin
        )

    async def add(opened: Database) -> tuple[User, Sequence[Act]]:
        await opened.users.add_users([(user, UserSecrets(await passwords.hash(password)))])
        return user, [make_add_act(user)]

    def show(user: User) -> None:
        if generate:
            typer.echo(password)
        tell_facts(user, loaded)
        if generate:
            tell(SHOWN_ONCE)

    try:
        change_database(loaded, add, show=show)
    except IdTaken:
        fail(f"There is a user {user.username!r} already.", code=IMPOSSIBLE)


def make_add_act(user: User) -> Act:
    given = {"roles": user.roles, "scopes": user.scopes, "claims": sorted(user.claims)}
    return Act("user.add", {**describe(user), **{k: " ".join(v) for k, v in given.items() if v}})


def update_user(
    config: Path | None,
    database: str | None,
    name: str,
    *,
    roles: Sequence[str] | None,
    scopes: Sequence[str] | None,
    claims: Sequence[str] | None,
) -> None:
    loaded = load_for_operator(config, database)
    with explained():
        change = build_change(loaded, roles=roles, scopes=scopes, claims=claims)

    async def update(opened: Database, user: User) -> tuple[User, Sequence[Act]]:
        changed = await opened.users.update_user(user.user_id, change)
        given = {"roles": change.roles, "scopes": change.scopes, "claims": change.claims}
        details = {kind: " ".join(some) for kind, some in given.items() if some is not None}
        return changed, [Act("user.update", {**describe(user), **details})]

    def show(user: User) -> None:
        tell_facts(user, loaded)
        tell(
            "Tokens made before say what they say until they expire, unless they are refused: "
            f"agentflow revoke --user-id {user.user_id}"
        )

    change_user(config, database, name, update, show=show)
