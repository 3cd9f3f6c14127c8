"""The commands about the database, and their options."""

from typing import Annotated

import typer

from agentflow_server.cli.options import ConfigFile, Database

db = typer.Typer(
    name="db",
    help="Upgrade, measure and tidy up the database.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@db.command()
def upgrade(config: ConfigFile = None, database: Database = None) -> None:
    """Make or migrate everything that serving needs; the agents' own tables, too."""
    from agentflow_server.cli.upkeep import upgrade_database  # noqa: PLC0415

    upgrade_database(config, database)


@db.command()
def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Show the version of its schema, and how much is in it."""
    from agentflow_server.cli.upkeep import show_status  # noqa: PLC0415

    show_status(config, database, as_json=as_json)


@db.command()
def prune(
    *,
    events_older_than: Annotated[
        str | None,
        typer.Option(
            help="Runs that ended before: 24h, 90d; default: what runs.event_retention says.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Delete the events of runs that ended long ago, and what has expired; messages stay."""
    from agentflow_server.cli.upkeep import prune_database  # noqa: PLC0415

    prune_database(config, database, events_older_than=events_older_than)
