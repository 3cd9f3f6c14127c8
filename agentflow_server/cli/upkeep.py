"""`agentflow db`: the database as a whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import typer

from agentflow_server.backend import Backend
from agentflow_server.cli.acts import Act
from agentflow_server.cli.database import choose_for_command
from agentflow_server.cli.durations import parse_duration
from agentflow_server.cli.failures import explained, load_user_code, naming_the_file
from agentflow_server.cli.operating import change_database, load_for_operator, tell, use_database
from agentflow_server.cli.tables import tabulate
from agentflow_server.config import use_folder
from agentflow_server.databases import Database
from agentflow_server.parts import choose_parts
from agentflow_server.runs.housekeeping import prune
from agentflow_server.stores.migrate import Condition

OUTDATED = 1


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
    """Changes nothing. Ends with OUTDATED unless the database is up to date."""
    loaded = load_for_operator(config, database)
    with explained():
        found = anyio.run(choose_for_command(loaded).examine)
    rows: Mapping[str, int] = {}
    if found.is_up_to_date:
        rows = use_database(loaded, lambda opened: opened.operators.count_rows())
    if as_json:
        facts = {"schema": found.version, "newest_schema": found.newest, "bytes": found.size}
        typer.echo(json.dumps({"database": loaded.database_shown, **facts, **rows}, indent=2))
    else:
        lines = {
            "database": loaded.database_shown,
            "schema": _describe(found),
            "size": f"{found.size / 1_000_000:.1f} MB",
            **{name.replace("_", " "): str(number) for name, number in rows.items()},
        }
        typer.echo(tabulate(list(lines.items())))
    if not found.is_up_to_date:
        raise typer.Exit(OUTDATED)


def _describe(found: Condition) -> str:
    if found.is_up_to_date:
        return f"{found.version}, up to date"
    if not found.version:
        return 'none yet; the first server makes it, or "agentflow db upgrade"'
    return f'{found.version}, and this version needs {found.newest}: "agentflow db upgrade"'


def prune_database(
    config: Path | None, database: str | None, *, events_older_than: str | None
) -> None:
    loaded = load_for_operator(config, database)
    retention = loaded.runs.event_retention
    if events_older_than is not None:
        with explained():
            retention = parse_duration(events_older_than, option="--events-older-than")

    async def clean(opened: Database) -> tuple[int, Sequence[Act]]:
        pruned = await prune(opened.store, opened.webhooks, opened.grants, retention)
        return pruned, [Act("db.prune", {"runs": str(pruned)})]

    def show(pruned: int) -> None:
        if retention is None:
            tell("runs.event_retention is null, so events stay; --events-older-than 90d deletes.")
        tell(f"Runs whose events were deleted: {pruned}")

    change_database(loaded, clean, show=show)
