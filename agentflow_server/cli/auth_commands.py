"""The commands about authentication as a whole, and their options."""

from pathlib import Path
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
    """Make what is missing: secrets, a key that signs, and a first user, whose password is printed."""
    from agentflow_server.cli.first_user import init_auth  # noqa: PLC0415

    init_auth(config, database, username=username, roles=role or [], scopes=scope or [])


@auth.command("rotate-keys")
def rotate_keys(
    *,
    now: Annotated[
        bool, typer.Option("--now", help="The old keys have leaked: remove them at once.")
    ] = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Sign tokens with a new key from ten minutes on; the old ones stay until theirs have expired."""
    from agentflow_server.cli import signing_keys  # noqa: PLC0415

    signing_keys.rotate_keys(config, database, at_once=now)


@auth.command()
def card(
    *,
    user: Annotated[str, typer.Option(help="Whom the card speaks for.")],
    save_path: Annotated[Path, typer.Option(help="The file; another card is replaced.")] = Path(
        "authen/secret.json"
    ),
    api_url: Annotated[
        str | None,
        typer.Option(help="Where the server is; default: its public_url.", show_default=False),
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(
            help="How long it is good: 30m, 1h; default 1h, or as long as the token server's are.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="The private key (PEM), when the server has only the public one.",
        ),
    ] = None,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Write a token and the server's URL into a file, for an agent's code to show."""
    from agentflow_server.cli.auth_card import write_card  # noqa: PLC0415

    write_card(
        config,
        database,
        user=user,
        save_path=save_path,
        api_url=api_url,
        expires_in=expires_in,
        key_file=key,
    )
