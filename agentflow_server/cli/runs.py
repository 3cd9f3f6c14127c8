"""`agentflow runs`: runs of all users, for operators."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast, get_args
from urllib.parse import urlsplit

import typer

from agentflow_server.cli.acts import Act
from agentflow_server.cli.durations import parse_duration
from agentflow_server.cli.failures import explained, fail
from agentflow_server.cli.operating import change_database, load_for_operator, tell, use_database
from agentflow_server.cli.tables import NOTHING, format_time, tabulate
from agentflow_server.databases import Database
from agentflow_server.errors import ConfigError, Conflict, NotFound
from agentflow_server.models import Idempotency, OwnedRun, Run, RunStatus, Stop

IMPOSSIBLE = 1

_COLUMNS = ("RUN ID", "USER", "STATUS", "AGENT", "CREATED", "SECONDS", "ERROR")
_PAGE = 100

T = TypeVar("T")
Changed = tuple[T, Sequence[Act]]


def list_runs(
    config: Path | None,
    database: str | None,
    *,
    status: str | None,
    owner: str | None,
    thread_id: str | None,
    older_than: str | None,
    limit: int,
    as_json: bool,
) -> None:
    now = datetime.now(UTC)
    with explained():
        wanted = _check_status(status)
        before = None if older_than is None else now - _parse_age(older_than)

    async def read(database: Database) -> Sequence[OwnedRun]:
        found: list[OwnedRun] = []
        cursor = None
        while len(found) < limit:
            page = await database.operators.list_all_runs(
                status=wanted,
                owner=owner,
                thread_id=thread_id,
                before=before,
                limit=min(_PAGE, limit - len(found)),
                cursor=cursor,
            )
            found += page.data
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    found = use_database(load_for_operator(config, database), read)
    if as_json:
        typer.echo(json.dumps([_facts(each) for each in found], indent=2))
    elif found:
        typer.echo(tabulate([_COLUMNS, *(_describe(each, now) for each in found)]))
    else:
        tell("There are no such runs.")


def show_run(config: Path | None, database: str | None, run_id: str, *, as_json: bool) -> None:
    loaded = load_for_operator(config, database)
    with _impossible_explained():
        found = use_database(loaded, lambda opened: _find(opened, run_id))
    facts = _facts(found)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    shown = {name: value for name, value in facts.items() if value not in (None, "", [])}
    typer.echo(tabulate([(name, _plain(value)) for name, value in shown.items()]))


def cancel_run(config: Path | None, database: str | None, run_id: str, how: Stop) -> None:
    async def cancel(opened: Database) -> Changed[Run]:
        found = await _find(opened, run_id)
        stopped = await opened.store.stop_run(found.owner, found.run.thread_id, run_id, how)
        return stopped, [_act("run.cancel", found, action=how)]

    def show(run: Run) -> None:
        tell("Cancelled." if run.ended_at else "Marked: whoever executes it stops it soon.")

    _change(config, database, cancel, show)


def retry_run(config: Path | None, database: str | None, run_id: str) -> None:
    async def retry(opened: Database) -> Changed[str]:
        found = await _find(opened, run_id)
        owner, new = await opened.operators.read_retry(run_id)
        # Given twice, the command starts one run.
        once = Idempotency(key=run_id, route="retry", digest="")
        started = await opened.store.start_run(owner, new, claim=False, idempotency=once)
        new_run_id = started.run.run_id
        return new_run_id, [_act("run.retry", found, new_run_id=new_run_id)]

    def show(new_run_id: str) -> None:
        typer.echo(new_run_id)
        tell("In line: a server that runs takes it up soon, else the next one that starts.")

    _change(config, database, retry, show)


def _check_status(status: str | None) -> RunStatus | None:
    """Raises ConfigError."""
    known = get_args(RunStatus)
    if status is not None and status not in known:
        raise ConfigError(f"--status: expected one of {', '.join(known)}, found {status!r}")
    return cast("RunStatus | None", status)


def _parse_age(text: str) -> timedelta:
    """Raises ConfigError."""
    return timedelta(seconds=parse_duration(text, option="--older-than"))


async def _find(database: Database, run_id: str) -> OwnedRun:
    """Raises NotFound."""
    found = await database.operators.find_run(run_id)
    if found is None:
        raise NotFound(f'There is no run {run_id!r}; "agentflow runs list" shows them')
    owner, run = found
    return OwnedRun(owner=owner, run=run)


def _change(
    config: Path | None,
    database: str | None,
    change: Callable[[Database], Awaitable[Changed[T]]],
    show: Callable[[T], None],
) -> None:
    loaded = load_for_operator(config, database)
    with _impossible_explained():
        change_database(loaded, change, show=show)


@contextmanager
def _impossible_explained() -> Iterator[None]:
    try:
        yield
    except (NotFound, Conflict) as exc:
        fail(str(exc), code=IMPOSSIBLE)


def _act(name: str, found: OwnedRun, **details: str) -> Act:
    known = {"run_id": found.run.run_id, "thread_id": found.run.thread_id, "user_id": found.owner}
    return Act(name, {**known, **details})


def _describe(found: OwnedRun, now: datetime) -> Sequence[str]:
    run = found.run
    seconds = NOTHING
    if run.started_at is not None:
        seconds = f"{((run.ended_at or now) - run.started_at).total_seconds():.1f}"
    error = run.error.code if run.error else NOTHING
    created = format_time(run.created_at)
    return run.run_id, found.owner or NOTHING, run.status, run.agent, created, seconds, error


def _facts(found: OwnedRun) -> Mapping[str, Any]:
    """What is for operators: neither what was said, nor where exactly a webhook is."""
    facts = found.run.model_dump(mode="json")
    if found.run.webhook is not None:
        facts["webhook"] = urlsplit(found.run.webhook).netloc
    facts["interrupts"] = [interrupt.interrupt_id for interrupt in found.run.interrupts]
    return {"user_id": found.owner, **facts}


def _plain(value: Any) -> str:
    match value:
        case {"code": str(code), "detail": str(detail)}:
            return f"{code}: {detail}"
        case list(items):
            return " ".join(items)
        case _:
            return str(value)
