"""`agentflow audit verify` and `agentflow audit tail`."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import anyio
import typer

from agentflow_server.audit import KEY_VARIABLE, open_chain
from agentflow_server.audit.reading import AuditReader, FileReader, TableReader
from agentflow_server.audit.verifying import Verification
from agentflow_server.cli.database import open_database
from agentflow_server.cli.failures import explained
from agentflow_server.cli.logs import escape, set_up_logs
from agentflow_server.config import Config, load_config
from agentflow_server.errors import ConfigError

DAMAGED = 1
_SHOWN = 50
_ASK_EVERY = 0.5


def verify_log(
    files: Sequence[Path], config: Path | None, database: str | None, *, part: bool
) -> None:
    """Without files, the configured log. Ends the process when something is wrong with it."""
    set_up_logs("error")
    with explained():
        loaded = None
        if config is not None or not files:
            # Also for the key, which may be in the dotenv file.
            loaded = load_config(config, overrides={"database": database})
        chain = open_chain()
        verification = Verification(chain, part=part)
        findings = anyio.run(_verify, verification, files, loaded)
    last = verification.last
    typer.echo(f"Lines: {verification.lines}; the last is seq {last.seq}, hash {last.hash}")
    if findings:
        raise typer.Exit(DAMAGED)
    typer.echo("None was changed, removed or moved.")
    if not chain.is_keyed:
        typer.echo(f"Without {KEY_VARIABLE}, whoever may write the log can forge all of it.")


async def _verify(verification: Verification, files: Sequence[Path], config: Config | None) -> int:
    """Print what is wrong; how much that is."""
    findings = 0
    async with AsyncExitStack() as stack:
        for reader in await _open_readers(files, config, stack):
            async for finding in _check(verification, reader):
                findings += 1
                if findings <= _SHOWN:
                    _complain(finding)
    if findings > _SHOWN:
        _complain(f"… and {findings - _SHOWN} more")
    return findings


async def _check(verification: Verification, reader: AuditReader) -> AsyncIterator[str]:
    async for where, line in reader.oldest_first():
        for finding in verification.check(line):
            yield f"{where}: {finding}"
    for finding in verification.check_end(reader.noted):
        yield f"{reader.name}: {finding}"


def _complain(line: str) -> None:
    typer.secho(escape(line), err=True, fg=typer.colors.RED)


async def _open_readers(
    files: Sequence[Path], config: Config | None, stack: AsyncExitStack
) -> Sequence[AuditReader]:
    if files or config is None:
        closing = stack.enter_context(ExitStack())
        return [FileReader(file, closing) for file in files]
    return [await stack.enter_async_context(_open_configured(config))]


@asynccontextmanager
async def _open_configured(config: Config) -> AsyncIterator[AuditReader]:
    """Raises ConfigError."""
    audit = config.observability.audit
    if audit.sink == "file":
        with ExitStack() as closing:
            yield FileReader(config.folder / str(audit.path), closing)
    elif audit.sink == "database":
        async with open_database(config) as database:
            yield await TableReader.make(database.audit_table)
    else:
        raise ConfigError(
            f'observability.audit: the sink is "{audit.sink}", so there is no log to read here'
        )


def print_tail(
    config: Path | None, database: str | None, *, user: str | None, follow: bool, count: int
) -> None:
    set_up_logs("error")
    with explained():
        loaded = load_config(config, overrides={"database": database})
        try:
            anyio.run(_tail, loaded, user, follow, count)
        except KeyboardInterrupt:
            # How `--follow` ends.
            raise typer.Exit from None


async def _tail(config: Config, user: str | None, follow: bool, count: int) -> None:
    async with _open_configured(config) as reader:
        newest: list[str] = []
        async for line in reader.newest_first():
            if len(newest) >= count:
                break
            if _is_wanted(line, user):
                newest.append(line)
        _print(reversed(newest))
        while follow:
            _print(line for line in await reader.news() if _is_wanted(line, user))
            await anyio.sleep(_ASK_EVERY)


def _is_wanted(line: str, user: str | None) -> bool:
    if user is None:
        return True
    try:
        event = json.loads(line)
        details = event.get("details", {})
        # What was done to somebody, or with what is his, concerns him as well as what he did.
        return user in (event.get("user_id"), details.get("user_id"), details.get("owner"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        # Ours are escaped already; one that was put there by somebody else may not be.
        typer.echo(escape(line))
