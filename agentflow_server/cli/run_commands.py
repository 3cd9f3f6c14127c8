"""The commands about runs, and their options."""

from typing import Annotated

import typer

from agentflow_server.cli.options import ConfigFile, Database

runs = typer.Typer(
    name="runs",
    help="See, stop and repeat the runs of all users, also while a server runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RunId = Annotated[str, typer.Argument(help="As `list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]


@runs.command("list")
def list_(
    *,
    status: Annotated[
        str | None,
        typer.Option(help="Only those that are pending, running, error …", show_default=False),
    ] = None,
    user_id: Annotated[
        str | None,
        typer.Option(help="Only those of this user, as the server calls him.", show_default=False),
    ] = None,
    thread_id: Annotated[
        str | None, typer.Option(help="Only those of this thread.", show_default=False)
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(help="Only those that were sent before: 10m, 24h.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Show runs, the newest first."""
    from agentflow_server.cli.runs import list_runs  # noqa: PLC0415

    list_runs(
        config,
        database,
        status=status,
        owner=user_id,
        thread_id=thread_id,
        older_than=older_than,
        limit=limit,
        as_json=as_json,
    )


@runs.command()
def show(
    run_id: RunId,
    *,
    as_json: AsJson = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Show one run, and how it failed."""
    from agentflow_server.cli.runs import show_run  # noqa: PLC0415

    show_run(config, database, run_id, as_json=as_json)


@runs.command()
def cancel(
    run_id: RunId,
    *,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Forget its whole turn, the message included.")
    ] = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Stop a run and keep what it has said; a server notices within seconds."""
    from agentflow_server.cli.runs import cancel_run  # noqa: PLC0415

    cancel_run(config, database, run_id, "rollback" if rollback else "cancel")


@runs.command()
def retry(run_id: RunId, config: ConfigFile = None, database: Database = None) -> None:
    """Send the message of a run that has failed or was stopped once more."""
    from agentflow_server.cli.runs import retry_run  # noqa: PLC0415

    retry_run(config, database, run_id)
