"""What operators' commands do with the database, beside a server that may run."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import typer

from agentflow_server.cli.acts import Act, open_log, write_down
from agentflow_server.cli.database import open_database
from agentflow_server.cli.failures import explained, fail
from agentflow_server.cli.logs import escape, set_up_logs
from agentflow_server.config import Config, load_config
from agentflow_server.databases import Database

UNWRITTEN = 3

T = TypeVar("T")


def load_for_operator(path: Path | None, database: str | None) -> Config:
    """Whatever is wrong ends the process with one line each."""
    set_up_logs("error")
    with explained():
        # Loaded, not only read: the key of the audit log may be in the dotenv file.
        return load_config(path, overrides={"database": database})


def use_database(config: Config, use: Callable[[Database], Awaitable[T]]) -> T:
    """What `use` returns. Whatever is wrong ends the process with one line each."""

    async def open_and_use() -> T:
        async with open_database(config) as opened:
            return await use(opened)

    with explained():
        return anyio.run(open_and_use)


def change_database(
    config: Config,
    change: Callable[[Database], Awaitable[tuple[T, Sequence[Act]]]],
    *,
    show: Callable[[T], None],
) -> None:
    """Do it, write it down, and show what came of it.

    Nothing is done when nothing can be written down. When writing fails afterwards, what was done
    is shown nevertheless, and the process ends with UNWRITTEN.
    """

    async def open_and_change() -> tuple[T, str | None]:
        async with open_database(config) as opened:
            log = await open_log(config, opened)
            result, acts = await change(opened)
            return result, await write_down(log, acts)

    with explained():
        result, problem = anyio.run(open_and_change)
    show(result)
    if problem is not None:
        fail(
            f"This was done, but it is not in the audit log, which cannot be written: {problem}",
            code=UNWRITTEN,
        )


def tell(*lines: str) -> None:
    """To stderr: stdout is for what a script takes on."""
    for line in lines:
        typer.echo(escape(line), err=True)
