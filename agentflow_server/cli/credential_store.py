"""The database of keys and revocations, opened for one command beside a server that may run."""

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import anyio
import typer

from agentflow_server.cli.auditing import record_act
from agentflow_server.cli.database import open_database
from agentflow_server.cli.failures import explained
from agentflow_server.cli.logs import escape, set_up_logs
from agentflow_server.config import load_config
from agentflow_server.interfaces import CredentialStore
from agentflow_server.models import AuditEvent

T = TypeVar("T")


def use_credentials(
    config: Path | None,
    database: str | None,
    use: Callable[[CredentialStore], Awaitable[T]],
    *,
    act: str | None = None,
    details: Mapping[str, str] | None = None,
) -> T:
    """What `use` returns. Whatever is wrong ends the process with one line each.

    `act` names what is written into the audit log, with its `details`, if it did anything.
    """
    set_up_logs("error")
    with explained():
        # Loaded, not only read: the key of the audit log may be in the dotenv file.
        loaded = load_config(config, overrides={"database": database})

        async def open_and_use() -> T:
            async with open_database(loaded) as opened:
                done = await use(opened.credentials)
                if act is not None and done is not False:
                    event = AuditEvent(time.time(), act, "success", details=details or {})
                    await record_act(loaded, opened, event)
                return done

        return anyio.run(open_and_use)


def tell(*lines: str) -> None:
    """To stderr: stdout is for what a script takes on."""
    for line in lines:
        typer.echo(escape(line), err=True)
