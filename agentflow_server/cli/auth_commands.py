"""The commands about authentication as a whole, and their options."""

from typing import Annotated

import typer

from agentflow_server.cli.options import ConfigFile, Database
from agentflow_server.cli.user_commands import Roles, Scopes

auth = typer.Typer(
    name="auth", help="Begin with users of your own.", no_args_is_help=True, rich_markup_mode=None
)


# Without it, a group of one command would be that command.
@auth.callback()
def options() -> None:
    pass


@auth.command()
def init(
    *,
    username: Annotated[str, typer.Option(help="How the first user is called.")] = "admin",
    role: Roles = None,
    scope: Scopes = None,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Add a first user and print the password; where there are users, nothing changes."""
    from agentflow_server.cli.first_user import add_first_user  # noqa: PLC0415

    add_first_user(config, database, username=username, roles=role or [], scopes=scope or [])
