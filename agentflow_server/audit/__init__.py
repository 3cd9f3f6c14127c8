"""Who did what, and who was refused: one line for each security decision, tied to the last."""

import os
from pathlib import Path

from agentflow_server.audit.chain import Chain
from agentflow_server.audit.file import AuditFile
from agentflow_server.audit.queue import NullAuditLog, QueuedAuditLog, Sink
from agentflow_server.audit.stdout import AuditStream
from agentflow_server.audit.table import AuditRows, Extendable
from agentflow_server.config import AuditConfig
from agentflow_server.errors import ConfigError
from agentflow_server.interfaces import AuditLog

KEY_VARIABLE = "AGENTFLOW_AUDIT_KEY"
_SHORTEST_KEY = 32


def open_audit(config: AuditConfig, *, folder: Path, table: Extendable) -> AuditLog:
    """The log that `observability.audit` asks for; nothing is written before its `open`.

    `folder` is the base of a relative path, `table` the database's. The key for the hashes comes
    from the environment. Raises ConfigError, as does the log's `open`.
    """
    sink = open_sink(config, folder=folder, table=table)
    return NullAuditLog() if sink is None else QueuedAuditLog(sink)


def open_sink(config: AuditConfig, *, folder: Path, table: Extendable) -> Sink | None:
    """Where that log goes, for who has to know that a line was written; None if it is off.

    Raises ConfigError, as does the sink's `open`.
    """
    match config.sink:
        case "off":
            return None
        case "stdout":
            return AuditStream(open_chain())
        case "file":
            return AuditFile(folder / str(config.path), open_chain())
        case "database":
            return AuditRows(table, open_chain())


def open_chain() -> Chain:
    """Keyed, if AGENTFLOW_AUDIT_KEY is set. Raises ConfigError."""
    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        return Chain()
    if len(key.encode()) < _SHORTEST_KEY or len(set(key)) < 8:
        raise ConfigError(
            f"{KEY_VARIABLE}: expected at least {_SHORTEST_KEY} random characters; "
            "`agentflow secret` prints some"
        )
    return Chain(key.encode())


__all__ = ["KEY_VARIABLE", "open_audit", "open_chain", "open_sink"]
