"""What operators do with commands: written down where the server writes, or not done at all."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentflow_server.audit import open_sink
from agentflow_server.audit.queue import Sink
from agentflow_server.config import Config
from agentflow_server.databases import Database
from agentflow_server.errors import StoreUnavailable
from agentflow_server.models import ApiKey, AuditEvent


@dataclass(frozen=True, slots=True)
class Act:
    """Something that was done, as the audit log calls it: to whom, or with what."""

    name: str
    details: Mapping[str, str]


def make_revoke_act(key: ApiKey) -> Act:
    return Act("api_key.revoke", {"key_id": key.key_id, "user_id": key.user_id})


async def open_log(config: Config, database: Database) -> Sink | None:
    """The log for acts, ready to be written to. Raises ConfigError.

    None when it is off, and when it is the standard output, which belongs to a command's result.
    """
    audit = config.observability.audit
    if audit.sink == "stdout":
        return None
    sink = open_sink(audit, folder=config.folder, table=database.audit_table)
    if sink is not None:
        await sink.open()
    return sink


async def write_down(sink: Sink | None, acts: Sequence[Act]) -> str | None:
    """Why that was impossible; None when it is done."""
    if sink is None or not acts:
        return None
    now = time.time()
    try:
        await sink.append(
            [AuditEvent(now, act.name, "success", details=act.details) for act in acts]
        )
    except (OSError, StoreUnavailable) as exc:
        return str(exc.__cause__ or exc)
    return None
