"""`agentflow webhooks`: what has not been delivered, for operators."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from agentflow_server.cli.acts import Act
from agentflow_server.cli.failures import fail
from agentflow_server.cli.operating import change_database, load_for_operator, tell, use_database
from agentflow_server.cli.tables import NOTHING, format_time, tabulate
from agentflow_server.databases import Database
from agentflow_server.models import Undelivered

NO_SUCH_DELIVERY = 1

_COLUMNS = ("DELIVERY ID", "RUN ID", "STATUS", "ENDED", "HOST", "ATTEMPTS", "NEXT", "FAILURE")


def list_undelivered(
    config: Path | None, database: str | None, *, limit: int, as_json: bool
) -> None:
    loaded = load_for_operator(config, database)
    found = use_database(loaded, lambda opened: opened.webhooks.list_deliveries(limit=limit))
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=2))
    elif found:
        typer.echo(tabulate([_COLUMNS, *map(_describe, found)]))
    else:
        tell("Everything has been delivered.")
    if loaded.webhooks is None and any(each.due_at for each in found):
        tell('Nothing is sent as long as agentflow.json has no "webhooks".')


def retry_delivery(config: Path | None, database: str | None, delivery_id: str) -> None:
    async def retry(opened: Database) -> tuple[bool, Sequence[Act]]:
        if not await opened.webhooks.retry_delivery(delivery_id):
            return False, ()
        return True, [Act("webhook.retry", {"delivery_id": delivery_id})]

    change_database(load_for_operator(config, database), retry, show=_tell_retried)


def _tell_retried(is_due: bool) -> None:
    if not is_due:
        fail(
            "There is no such delivery, or it is under way just now; "
            '"agentflow webhooks list" shows them.',
            code=NO_SUCH_DELIVERY,
        )
    tell("Due: a server that runs sends it soon, else the next one that starts.")


def _describe(found: Undelivered) -> Sequence[str]:
    return (
        found.delivery_id,
        found.run_id,
        found.status,
        format_time(found.ended_at),
        found.host,
        str(found.attempt),
        "given up" if found.due_at is None else format_time(found.due_at),
        found.failure or NOTHING,
    )
