"""`agentflow token` makes a token, `agentflow token verify` explains one."""

from pathlib import Path
from typing import Annotated

import typer

from agentflow_server.cli.options import ConfigFile, Database

token = typer.Typer(name="token", invoke_without_command=True, rich_markup_mode=None)


@token.callback()
def make(
    context: typer.Context,
    *,
    user_id: Annotated[
        str | None, typer.Option(help="Whom the token speaks for.", show_default="required")
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(help="name=value, the value as JSON or plain text. May be repeated."),
    ] = None,
    expires: Annotated[str, typer.Option(help="How long it is valid: 30s, 15m, 1h, 7d.")] = "1h",
    key: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="The private key (PEM), when the server has only the public one.",
        ),
    ] = None,
    kid: Annotated[
        str | None,
        typer.Option(help="The id of the configured key; default: the newest.", show_default=False),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Print a JWT for development, signed with the configured key."""
    if context.invoked_subcommand is not None:
        return
    if user_id is None:
        context.fail("Missing option '--user-id'.")
    from agentflow_server.cli.minting import print_token  # noqa: PLC0415

    print_token(config, user_id=user_id, claims=claim or [], expires=expires, key_file=key, kid=kid)


@token.command()
def verify(
    text: Annotated[
        str, typer.Argument(metavar="TOKEN", help="The token, or - to read it from stdin.")
    ],
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Say whether the configured server accepts a token, and if not, exactly why."""
    from agentflow_server.cli.verifying import verify_token  # noqa: PLC0415

    verify_token(config, database, text)
