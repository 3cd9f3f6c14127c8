"""The commands about webhooks, and their options."""

from typing import Annotated

import typer

from agentflow_server.cli.options import ConfigFile, Database

webhooks = typer.Typer(
    name="webhooks",
    help="See and repeat what webhooks have not been told, also while a server runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@webhooks.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=10_000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for scripts.")] = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Show what has not arrived, of the runs that ended last first."""
    from agentflow_server.cli.webhooks import list_undelivered  # noqa: PLC0415

    list_undelivered(config, database, limit=limit, as_json=as_json)


@webhooks.command()
def retry(
    delivery_id: Annotated[str, typer.Argument(help="As `list` shows it.")],
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Send it again, now and as often as if it were new."""
    from agentflow_server.cli.webhooks import retry_delivery  # noqa: PLC0415

    retry_delivery(config, database, delivery_id)
