"""`agentflow db`: how the database is, upgrading it, tidying it up; and who else leaves it alone."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import Result

from agentflow_server.models import RunStatus
from agentflow_server.stores import postgres_opening, sqlite_file
from agentflow_server.stores.migrate import load_migrations
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_data import SUCCESS, answer, events, make_thread, start

Command = Callable[..., Result]
Project = Callable[..., Path]
UseStore = Callable[..., Any]

NEWEST = load_migrations("sqlite")[-1].version
AUDIT = {"audit": {"sink": "file", "path": "audit.log"}}
GRAPH = """
from langgraph.graph import START, MessagesState, StateGraph

def answer(state):
    return {"messages": [("ai", "Hello")]}

app = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
"""


def test_both_databases_have_the_same_versions() -> None:
    assert load_migrations("postgres")[-1].version == NEWEST


@pytest.fixture
def folder(project: Project, database: str) -> Path:
    return project(database=database, observability=AUDIT)


@contextmanager
def being_older() -> Iterator[None]:
    """This process is the version before."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (sqlite_file, postgres_opening):
            patch.setattr(module, "load_migrations", lambda dialect: load_migrations(dialect)[:-1])
        yield


@pytest.fixture
def list_tables(database: str) -> Callable[[], Sequence[str]]:
    """Whatever is in the database, looked at from outside."""

    def look() -> Sequence[str]:
        if database.startswith("sqlite"):
            path = Path(database.removeprefix("sqlite:///"))
            if not path.exists():
                return ()
            with closing(sqlite3.connect(path)) as connection:
                found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                return [name for (name,) in found]
        import psycopg

        with psycopg.connect(database) as postgres:
            rows = postgres.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname IN ('agentflow', 'public')"
            )
            return [name for (name,) in rows]

    return look


def status(run: Command) -> Any:
    result = run("db", "status", "--json")
    return result.exit_code, json.loads(result.stdout)


def acts(run: Command) -> list[tuple[str, Any]]:
    lines = map(json.loads, run("audit", "tail").stdout.splitlines())
    return [(line["action"], line["details"]) for line in lines]


def run_once(use_store: UseStore) -> Any:
    async def work(store: Any) -> Any:
        thread = await make_thread(store)
        active = await start(store, thread.thread_id)
        await store.finish_run(active, SUCCESS, [answer(active)], events(active, 1, 2, 3))
        return active.run

    return use_store(work)


# Looking


def test_an_empty_database_is_empty_afterwards(
    folder: Path, run: Command, database: str, list_tables: Callable[[], Sequence[str]]
) -> None:
    result = run("db", "status")
    assert result.exit_code == 1
    assert 'none yet; the first server makes it, or "agentflow db upgrade"' in result.stdout
    code, told = status(run)
    assert code == 1
    assert (told["schema"], told["newest_schema"]) == (0, NEWEST)
    assert list(list_tables()) == []
    assert not (folder / "runs.db").exists()


def test_what_is_in_it_is_counted(
    folder: Path, run: Command, database: str, use_store: UseStore
) -> None:
    run_once(use_store)
    result = run("db", "status")
    assert result.exit_code == 0
    lines = [line.split("  ") for line in result.stdout.splitlines()]
    told = {cells[0]: cells[-1].strip() for cells in lines}
    assert told["schema"] == f"{NEWEST}, up to date"
    assert float(told["size"].removesuffix(" MB")) > 0
    assert (told["threads"], told["messages"], told["events"]) == ("1", "2", "3")
    code, data = status(run)
    assert code == 0
    assert data["bytes"] > 0
    statuses = {f"runs_{name}": 0 for name in get_args(RunStatus)} | {"runs_success": 1}
    known = {"database", "schema", "newest_schema", "bytes"}
    counted = {name: number for name, number in data.items() if name not in known}
    assert counted == {"threads": 1, **statuses, "messages": 2, "events": 3}
    password = database.rpartition("@")[0].rpartition(":")[2] or "hunter2"
    assert password not in result.output


def test_an_older_one_is_left_as_it_is_by_all_commands_but_upgrade(
    folder: Path, run: Command
) -> None:
    with being_older():
        assert run("db", "upgrade").exit_code == 0
        assert status(run)[0] == 0
    result = run("db", "status")
    assert result.exit_code == 1
    needed = f'{NEWEST - 1}, and this version needs {NEWEST}: "agentflow db upgrade"'
    assert needed in result.stdout
    for command in (
        ["runs", "list"],
        ["runs", "cancel", "x"],
        ["webhooks", "list"],
        ["api-keys", "list"],
        ["revoke", "--user-id", "alice"],
        ["db", "prune"],
    ):
        refused = run(*command)
        assert (refused.exit_code, refused.stdout) == (2, "")
        (line,) = refused.stderr.splitlines()
        assert f"its schema is {NEWEST - 1}, this version of agentflow-server needs" in line
        assert line.endswith('"agentflow db upgrade" brings it there')
    checked = run("check")
    assert checked.exit_code == 0, checked.output
    assert "Everything loads; the database is to be upgraded, so it was not opened:" in (
        checked.stdout
    )
    assert status(run)[1]["schema"] == NEWEST - 1
    assert acts(run) == []
    assert run("db", "upgrade").exit_code == 0
    assert status(run)[0] == 0
    assert run("runs", "list").exit_code == 0


def test_a_newer_one_is_refused(folder: Path, run: Command) -> None:
    assert run("db", "upgrade").exit_code == 0
    with being_older():
        for command in (["db", "status"], ["db", "upgrade"], ["runs", "list"], ["check"]):
            result = run(*command)
            assert (result.exit_code, result.stdout) == (2, "")
            (line,) = result.stderr.splitlines()
            assert "made by a newer agentflow-server" in line


def test_another_programs_database_is_refused(
    folder: Path, run: Command, database: str, postgres_server: Any
) -> None:
    if database.startswith("sqlite"):
        with closing(sqlite3.connect(folder / "runs.db")) as connection:
            connection.execute("CREATE TABLE recipes (name text)")
    else:
        postgres_server.execute("CREATE SCHEMA agentflow", database)
        postgres_server.execute("CREATE TABLE agentflow.recipes (name text)", database)
    for command in (["db", "status"], ["db", "upgrade"], ["runs", "list"]):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = result.stderr.splitlines()
        assert "belongs to another program" in line


def test_a_file_that_is_none_is_refused(project: Project, run: Command, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is no database." * 100, encoding="utf-8")
    (tmp_path / "folder.db").mkdir()
    project()
    for name, why in (("text.db", "file is not a database"), ("folder.db", "is a folder")):
        result = run("db", "status", "--database", f"sqlite:///{tmp_path}/{name}")
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = result.stderr.splitlines()
        assert why in line


def test_a_status_is_told_beside_a_server(project: Project, run: Command, tmp_path: Path) -> None:
    project(database=f"sqlite:///{tmp_path}/runs.db")

    async def look_beside() -> Result:
        async with SqliteStore(tmp_path / "runs.db") as server:
            await make_thread(server)
            return await asyncio.to_thread(run, "db", "status")

    result = asyncio.run(look_beside())
    assert result.exit_code == 0
    assert "threads           1" in result.stdout


@pytest.mark.parametrize("command", ["status", "upgrade", "prune"])
def test_a_database_that_nobody_serves_is_one_line(
    project: Project, run: Command, command: str
) -> None:
    project(database="postgresql://somebody:hunter2@127.0.0.1:1/there")
    result = run("db", command)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "postgresql://127.0.0.1:1/there: the database cannot be used" in line
    assert "hunter2" not in line


# Upgrading


def test_an_upgrade_makes_what_serving_needs(
    project: Project, run: Command, database: str, list_tables: Callable[[], Sequence[str]]
) -> None:
    project(agent=GRAPH, database=database)
    for _ in range(2):
        result = run("db", "upgrade")
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr.endswith("is up to date.\n")
    assert {"runs", "checkpoints"} <= set(list_tables())


def test_a_file_is_not_upgraded_under_a_server(
    project: Project, run: Command, tmp_path: Path
) -> None:
    project(database=f"sqlite:///{tmp_path}/runs.db")

    async def upgrade_beside() -> Result:
        async with SqliteStore(tmp_path / "runs.db"):
            return await asyncio.to_thread(run, "db", "upgrade")

    result = asyncio.run(upgrade_beside())
    assert result.exit_code == 2
    assert result.stderr.endswith("is in use by another agentflow server\n")


def test_an_upgrade_needs_agents_that_load(project: Project, run: Command, database: str) -> None:
    project(agent="1 / 0\n", database=database)
    result = run("db", "upgrade")
    assert result.exit_code == 2
    assert "ZeroDivisionError" in result.output


def test_a_check_makes_no_tables_for_agents_in_a_database_that_others_may_use(
    project: Project, run: Command, postgres_url: str, postgres_server: Any
) -> None:
    project(database=postgres_url)
    assert run("db", "upgrade").exit_code == 0
    del sys.modules["project_agent"]
    project(agent=GRAPH, database=postgres_url)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'agentflow' ORDER BY 1"
    before = postgres_server.execute(tables, postgres_url)
    result = run("check")
    assert result.exit_code == 0, result.output
    assert "the tables of LangGraph are not up to date" in result.stdout
    assert postgres_server.execute(tables, postgres_url) == before
    assert run("db", "upgrade").exit_code == 0
    assert "Everything loads; the database opens." in run("check").stdout


# Pruning


def test_events_are_deleted_and_messages_stay(
    folder: Path, run: Command, use_store: UseStore
) -> None:
    found = run_once(use_store)
    result = run("db", "prune", "--events-older-than", "1h")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Runs whose events were deleted: 0\n"

    async def make_old(store: Any) -> None:
        sql = "UPDATE runs SET ended_at = ended_at - 7200000000"
        if isinstance(store, SqliteStore):
            await store.write(lambda connection: connection.execute(sql).rowcount)
        else:
            await store.write(lambda connection: connection.execute(sql))

    use_store(make_old)
    assert "deleted: 1\n" in run("db", "prune", "--events-older-than", "1h").stderr
    told = status(run)[1]
    assert (told["events"], told["messages"]) == (0, 2)
    assert json.loads(run("runs", "show", found.run_id, "--json").stdout)["status"] == "success"
    assert acts(run) == [("db.prune", {"runs": "0"}), ("db.prune", {"runs": "1"})]


def test_without_a_retention_it_says_how_to_delete(folder: Path, run: Command) -> None:
    first, second = run("db", "prune").stderr.splitlines()
    assert "runs.event_retention is null" in first
    assert second == "Runs whose events were deleted: 0"


def test_the_configured_retention_is_what_counts(
    project: Project, run: Command, database: str, use_store: UseStore
) -> None:
    run_once(use_store)
    project(database=database, runs={"event_retention": 0.001})
    assert run("db", "prune").stderr == "Runs whose events were deleted: 1\n"


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1", "1w", "36501d", "1h30m"])
def test_a_time_that_is_none_deletes_nothing(folder: Path, run: Command, text: str) -> None:
    result = run("db", "prune", "--events-older-than", text)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("--events-older-than: expected ")
    assert acts(run) == []


def test_a_server_deletes_by_itself_what_has_had_its_time(
    project: Project, database: str, start: Callable[..., Any], use_store: UseStore, run: Command
) -> None:
    run_once(use_store)
    project(database=database, runs={"event_retention": 0.001})
    server = start("serve", "--port", "0")
    server.wait_for("deleted the events of 1 runs")
    assert status(run)[1]["events"] == 0
