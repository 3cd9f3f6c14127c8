"""`agentflow auth init`: a first user, where there is none."""

from collections.abc import Sequence
from pathlib import Path

import typer

from agentflow_server.cli.acts import Act
from agentflow_server.cli.failures import explained
from agentflow_server.cli.new_passwords import make_password
from agentflow_server.cli.operating import change_database, load_for_operator, tell
from agentflow_server.cli.user_facts import build_user, tell_facts
from agentflow_server.cli.users import SHOWN_ONCE, make_add_act
from agentflow_server.databases import Database
from agentflow_server.models import User, UserSecrets
from agentflow_server.users import open_passwords


def add_first_user(
    config: Path | None,
    database: str | None,
    *,
    username: str,
    roles: Sequence[str],
    scopes: Sequence[str],
) -> None:
    """The password, and nothing else, goes to stdout. Twice is the same as once."""
    loaded = load_for_operator(config, database)
    with explained():
        user = build_user(loaded, username, roles=roles, scopes=scopes)
        passwords = open_passwords()
    password = make_password()

    async def add(opened: Database) -> tuple[User | None, Sequence[Act]]:
        if (await opened.users.list_users(limit=1)).data:
            return None, ()
        await opened.users.add_users([(user, UserSecrets(await passwords.hash(password)))])
        return user, [make_add_act(user)]

    def show(added: User | None) -> None:
        if added is None:
            tell("There are users already: nothing was changed.")
        else:
            typer.echo(password)
            tell_facts(added, loaded)
            tell(SHOWN_ONCE)
        tell('Next: "agentflow users list" shows them, "agentflow users add" adds another.')

    change_database(loaded, add, show=show)
