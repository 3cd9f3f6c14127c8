"""The commands about API keys and revocations, and their options."""

from typing import Annotated

import typer

from agentflow_server.cli.options import ConfigFile, Database

api_keys = typer.Typer(
    name="api-keys",
    help="Make, list and revoke API keys, also while a server runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@api_keys.command()
def create(
    *,
    user_id: Annotated[str, typer.Option(help="Whom the key speaks for.")],
    name: Annotated[
        str | None, typer.Option(help="What it is for: a note to yourself.", show_default=False)
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do. May be repeated.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="How long it is valid: 24h, 90d; default: for ever.", show_default=False),
    ] = None,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Print a new key, this once."""
    from agentflow_server.cli.api_keys import create_key  # noqa: PLC0415

    create_key(config, database, user_id=user_id, name=name, scopes=scope or [], expires=expires)


@api_keys.command("list")
def list_(
    *,
    user_id: Annotated[
        str | None, typer.Option(help="Only this user's keys.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Show the keys, the oldest first; their secrets are nowhere."""
    from agentflow_server.cli.api_keys import list_keys  # noqa: PLC0415

    list_keys(config, database, user_id=user_id, as_json=as_json)


@api_keys.command("revoke")
def revoke_api_key(
    key_id: Annotated[str, typer.Argument(help="As `list` shows it; a whole key does as well.")],
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Refuse a key from now on."""
    from agentflow_server.cli.api_keys import revoke_key  # noqa: PLC0415

    revoke_key(config, database, key_id)


def revoke(
    *,
    token_id: Annotated[
        str | None, typer.Option(help="Refuse the token with this `jti`.", show_default=False)
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option(help="Only if this issuer made it; default: any.", show_default=False),
    ] = None,
    user_id: Annotated[
        str | None,
        typer.Option(help="Refuse all tokens and API keys of this user.", show_default=False),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            help="Only what was issued before: 2026-01-31T12:00:00Z; default: now.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="For how long: at least as long as your tokens live.")
    ] = "30d",
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Refuse a token, or all of a user's: within 60 seconds where a server runs."""
    from agentflow_server.cli.revoking import revoke_credentials  # noqa: PLC0415

    revoke_credentials(
        config,
        database,
        token_id=token_id,
        issuer=issuer,
        user_id=user_id,
        before=before,
        keep=keep,
    )
