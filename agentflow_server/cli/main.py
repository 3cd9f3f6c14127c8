"""The commands and their options.

What a command needs is imported when it runs: `agentflow --help` waits for no framework.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from agentflow_server import __version__
from agentflow_server.cli.audit_commands import audit
from agentflow_server.cli.auth_commands import auth
from agentflow_server.cli.console_commands import chat, login, logout, whoami
from agentflow_server.cli.credential_commands import api_keys, revoke
from agentflow_server.cli.database_commands import db
from agentflow_server.cli.demo_oauth import demo_oauth
from agentflow_server.cli.init import init
from agentflow_server.cli.options import ConfigFile, Database
from agentflow_server.cli.run_commands import runs
from agentflow_server.cli.token_commands import token
from agentflow_server.cli.usage import Commands
from agentflow_server.cli.user_commands import users
from agentflow_server.cli.webhook_commands import webhooks

app = typer.Typer(
    name="agentflow",
    cls=Commands,
    help="Serve the agent that agentflow.json names.",
    no_args_is_help=True,
    add_completion=False,
    # Rich costs a tenth of a second in each call, and hides the user's own tracebacks in boxes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Host = Annotated[
    str | None, typer.Option(help="Address to listen on; default 127.0.0.1.", show_default=False)
]
Port = Annotated[
    int | None,
    typer.Option(help="Default 8000; 0 takes a free one.", min=0, max=65535, show_default=False),
]
LogLevelOption = Annotated[
    Literal["debug", "info", "warning", "error", "critical"] | None,
    typer.Option("--log-level", show_default=False),
]
JsonLogs = Annotated[bool, typer.Option("--json-logs", help="One JSON object a line.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    *,
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    database: Database = None,
    log_level: LogLevelOption = None,
    json_logs: JsonLogs = False,
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a file changes.")] = False,
    workers: Annotated[
        int, typer.Option(help="Processes that share the port; needs PostgreSQL.", min=1, max=64)
    ] = 1,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Leave all runs to `agentflow worker`.")
    ] = False,
    shutdown_delay: Annotated[
        float,
        typer.Option(
            help="Seconds to go on listening after SIGTERM, while /health/ready says 503.",
            min=0,
            max=600,
        ),
    ] = 0.0,
    ssl_certfile: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
) -> None:
    """Serve the agents over HTTP."""
    from agentflow_server.cli.serving import Serving, serve_reloading  # noqa: PLC0415

    serving = Serving(
        path=config,
        overrides={"host": host, "port": port, "database": database, "log_level": log_level},
        json_logs=json_logs,
        certificate=ssl_certfile,
        key=ssl_keyfile,
        executes=not no_worker,
        workers=workers,
        shutdown_delay=shutdown_delay,
    )
    if reload and workers > 1:
        raise typer.BadParameter("--reload and --workers exclude each other")
    if reload:
        serve_reloading(serving)
    elif workers > 1:
        serving.run_several()
    else:
        serving.run()


@app.command()
def worker(
    *,
    config: ConfigFile = None,
    database: Database = None,
    log_level: LogLevelOption = None,
    json_logs: JsonLogs = False,
) -> None:
    """Execute runs that servers accept, without serving HTTP. Needs PostgreSQL."""
    from agentflow_server.cli.working import work  # noqa: PLC0415

    work(config, overrides={"database": database, "log_level": log_level}, json_logs=json_logs)


app.command("init")(init)


@app.command()
def check(config: ConfigFile = None, host: Host = None, database: Database = None) -> None:
    """Load everything that serving needs, report, and stop."""
    from agentflow_server.cli.checking import check_everything  # noqa: PLC0415

    check_everything(config, overrides={"host": host, "database": database})


@app.command()
def show(
    config: ConfigFile = None, host: Host = None, port: Port = None, database: Database = None
) -> None:
    """Print the effective configuration as JSON, secrets masked."""
    from agentflow_server.cli.checking import show_effective  # noqa: PLC0415

    show_effective(config, overrides={"host": host, "port": port, "database": database})


@app.command()
def secret() -> None:
    """Print a good JWT_SECRET_KEY for HS256, HS384 and HS512."""
    from agentflow_server.cli.keygen import print_secret  # noqa: PLC0415

    print_secret()


@app.command()
def keys(
    algorithm: Annotated[
        Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"], typer.Option()
    ] = "ES256",
    out: Annotated[Path, typer.Option(help="The folder for the two files.", file_okay=False)] = (
        Path()
    ),
) -> None:
    """Write a key pair for JWT: two PEM files."""
    from agentflow_server.cli.keygen import write_key_pair  # noqa: PLC0415

    write_key_pair(algorithm, out)


app.add_typer(token)
app.add_typer(auth)
app.add_typer(users)
app.add_typer(api_keys)
app.add_typer(audit)
app.add_typer(runs)
app.add_typer(webhooks)
app.add_typer(db)
app.command("revoke")(revoke)
app.command("chat")(chat)
app.command("login")(login)
app.command("logout")(logout)
app.command("whoami")(whoami)
app.command("demo-oauth")(demo_oauth)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"agentflow-server {__version__}")
