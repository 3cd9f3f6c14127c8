"""The commands about local users, and their options."""

from pathlib import Path
from typing import Annotated

import typer

from agentflow_server.cli.options import ConfigFile, Database

users = typer.Typer(
    name="users",
    help="Add, change and remove the users of this server, also while it runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[
    str, typer.Argument(metavar="USERNAME", help="As `list` shows it; the user id does as well.")
]
Roles = Annotated[list[str] | None, typer.Option("--role", help="A role. May be repeated.")]
Scopes = Annotated[
    list[str] | None, typer.Option("--scope", help="What he may do. May be repeated.")
]
Claims = Annotated[
    list[str] | None,
    typer.Option("--claim", help="name=value, the value as JSON or plain text. May be repeated."),
]
Generate = Annotated[
    bool, typer.Option("--generate", help="Make a password, and print it this once.")
]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from stdin: one line.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]


@users.command()
def add(
    username: Annotated[str, typer.Argument(help="a-z, 0-9 and . _ - @ +; case is ignored.")],
    *,
    role: Roles = None,
    scope: Scopes = None,
    claim: Claims = None,
    generate: Generate = False,
    password_stdin: FromStdin = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Add a user; the password is asked for, made, or read from stdin."""
    from agentflow_server.cli.users import add_user  # noqa: PLC0415

    add_user(
        config,
        database,
        username=username,
        roles=role or [],
        scopes=scope or [],
        claims=claim or [],
        generate=generate,
        from_stdin=password_stdin,
    )


@users.command("list")
def list_(*, as_json: AsJson = False, config: ConfigFile = None, database: Database = None) -> None:
    """Show the users by their names; hashes and second factors are never shown."""
    from agentflow_server.cli.user_lists import list_users  # noqa: PLC0415

    list_users(config, database, as_json=as_json)


@users.command()
def show(
    username: Name, *, as_json: AsJson = False, config: ConfigFile = None, database: Database = None
) -> None:
    """Show one user, and his claims."""
    from agentflow_server.cli.user_lists import show_user  # noqa: PLC0415

    show_user(config, database, username, as_json=as_json)


@users.command()
def update(
    username: Name,
    *,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="Instead of all he has; '' leaves none.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Instead of all he has; '' leaves none.")
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option("--claim", help="Instead of all he has; '' leaves none.")
    ] = None,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Replace a user's roles, scopes or claims."""
    from agentflow_server.cli.users import update_user  # noqa: PLC0415

    update_user(config, database, username, roles=role, scopes=scope, claims=claim)


@users.command()
def disable(username: Name, config: ConfigFile = None, database: Database = None) -> None:
    """Let a user log in no more, and refuse his tokens and API keys."""
    from agentflow_server.cli.user_access import disable_user  # noqa: PLC0415

    disable_user(config, database, username)


@users.command()
def enable(username: Name, config: ConfigFile = None, database: Database = None) -> None:
    """Let a disabled user log in again; what was refused stays refused."""
    from agentflow_server.cli.user_access import enable_user  # noqa: PLC0415

    enable_user(config, database, username)


@users.command("set-password")
def set_password(
    username: Name,
    *,
    generate: Generate = False,
    password_stdin: FromStdin = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Give a user a new password, and refuse his tokens and API keys."""
    from agentflow_server.cli.user_access import replace_password  # noqa: PLC0415

    replace_password(config, database, username, generate=generate, from_stdin=password_stdin)


@users.command()
def totp(
    username: Name,
    *,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take it away; the password alone is enough then.")
    ] = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Give a user a second factor, a new one if he has one, and print its address this once."""
    from agentflow_server.cli.user_totp import remove_totp, set_totp  # noqa: PLC0415

    (remove_totp if remove else set_totp)(config, database, username)


@users.command()
def remove(username: Name, config: ConfigFile = None, database: Database = None) -> None:
    """Remove a user, and refuse his tokens and API keys; his threads stay."""
    from agentflow_server.cli.user_access import remove_user  # noqa: PLC0415

    remove_user(config, database, username)


@users.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="Users, one a line: .jsonl or .csv.", exists=True, dir_okay=False)
    ],
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Add all users of a file or, when something is wrong with one, none."""
    from agentflow_server.cli.user_import import import_users  # noqa: PLC0415

    import_users(config, database, file)
