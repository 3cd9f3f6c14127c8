"""`agentflow db`: the database as a whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import typer

from agentflow_server.backend import Backend
from agentflow_server.cli.acts import Act
from agentflow_server.cli.durations import parse_duration
from agentflow_server.cli.failures import explained, load_user_code, naming_the_file
from agentflow_server.cli.operating import change_database, load_for_operator, tell, use_database
from agentflow_server.cli.tables import tabulate
from agentflow_server.config import use_folder
from agentflow_server.databases import Database
from agentflow_server.parts import choose_parts
from agentflow_server.runs.housekeeping import prune


def upgrade_database(config: Path | None, database: str | None) -> None:
    """As the first server of this version would; no run is touched."""
    loaded = load_for_operator(config, database)
    with explained():
        use_folder(loaded)
        backend = Backend(loaded, load_user_code(loaded, choose_parts))
        with naming_the_file(loaded):
            anyio.run(backend.verify)
    tell(f"{loaded.database_shown} is up to date.")


def show_status(config: Path | None, database: str | None, *, as_json: bool) -> None:
    loaded = load_for_operator(config, database)

    async def read(opened: Database) -> Mapping[str, str | int]:
        return {
            "database": loaded.database_shown,
            "schema": await opened.operators.schema_version(),
            **await opened.operators.count_rows(),
        }

    found = use_database(loaded, read)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo(
            tabulate([(name.replace("_", " "), str(value)) for name, value in found.items()])
        )


def prune_database(
    config: Path | None, database: str | None, *, events_older_than: str | None
) -> None:
    loaded = load_for_operator(config, database)
    retention = loaded.runs.event_retention
    if events_older_than is not None:
        with explained():
            retention = parse_duration(events_older_than, option="--events-older-than")

    async def clean(opened: Database) -> tuple[int, Sequence[Act]]:
        pruned = await prune(opened.store, opened.webhooks, retention)
        return pruned, [Act("db.prune", {"runs": str(pruned)})]

    def show(pruned: int) -> None:
        if retention is None:
            tell("runs.event_retention is null, so events stay; --events-older-than 90d deletes.")
        tell(f"Runs whose events were deleted: {pruned}")

    change_database(loaded, clean, show=show)
