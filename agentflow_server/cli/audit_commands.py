"""The commands about the audit log, and their options."""

from pathlib import Path
from typing import Annotated

import typer

from agentflow_server.cli.options import ConfigFile, Database

audit = typer.Typer(
    name="audit",
    help="Read and verify the audit log, also while a server runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@audit.command()
def verify(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Log files, the oldest first; default: the configured log.",
            show_default=False,
        ),
    ] = None,
    part: Annotated[
        bool, typer.Option("--part", help="Older lines are elsewhere: begin with any line.")
    ] = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Find lines that were changed, removed or moved; exit code 1 if there are any."""
    from agentflow_server.cli.auditing import verify_log  # noqa: PLC0415

    verify_log(files or [], config, database, part=part)


@audit.command()
def tail(
    *,
    user: Annotated[
        str | None, typer.Option(help="Only this user's events.", show_default=False)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("-n", help="How many of the newest.", min=0)] = 20,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Print the newest lines, one JSON object each."""
    from agentflow_server.cli.auditing import print_tail  # noqa: PLC0415

    print_tail(config, database, user=user, follow=follow, count=lines)
