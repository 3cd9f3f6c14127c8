"""`agentflow check` and `agentflow show`: the configuration, without serving."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import typer

from agentflow_server.cli.banner import align, summarise
from agentflow_server.cli.failures import explained, load_app, naming_the_file
from agentflow_server.cli.logs import set_up_logs
from agentflow_server.config import (
    effective,
    exposure_problems,
    load_config,
    read_config,
    unknown_variables,
)
from agentflow_server.errors import ConfigError, DatabaseInUse, DatabaseOutdated

if TYPE_CHECKING:
    from agentflow_server.app import AgentflowApp

Overrides = Mapping[str, str | int | None]


def check_everything(path: Path | None, *, overrides: Overrides) -> None:
    """Load and open what serving needs, and close it again. Servers of an older version may be
    running: their database is not upgraded."""
    with explained():
        config = load_config(path, overrides=overrides)
        set_up_logs("warning")
        errors, warnings = exposure_problems(config, config.host)
        if errors:
            raise ConfigError(*errors)
        app = load_app(config, upgrades=False)
        database = _check_database(app)
        for warning in (*warnings, *unknown_variables(config)):
            typer.secho(warning, err=True, fg=typer.colors.YELLOW)
        typer.echo(f"{align({'Config': str(config.path), **summarise(config)})}\n")
        typer.secho(f"Everything loads; {database}.", fg=typer.colors.GREEN)


def _check_database(app: "AgentflowApp") -> str:
    try:
        with naming_the_file(app.config):
            anyio.run(app.verify)
    except DatabaseInUse:
        return "the database is in use by a running server, so it was not opened"
    except DatabaseOutdated as exc:
        return f"the database is to be upgraded, so it was not opened: {exc}"
    return "the database opens"


def show_effective(path: Path | None, *, overrides: Overrides) -> None:
    """Print every setting with its value; loads nothing of the user's."""
    with explained():
        shown = effective(read_config(path, overrides=overrides))
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
