"""`agentflow runs`: what operators see of all users' runs, and what they do with them."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result
from uuid_utils import uuid7

from agentflow_server.cli import runs as commands
from agentflow_server.models import Run, RunOutcome
from agentflow_server.testing.store_data import (
    ALICE,
    BOB,
    FAILURE,
    SUCCESS,
    answer,
    asking,
    events,
    list_contents,
    make_id,
    make_thread,
    new_run,
)

Command = Callable[..., Result]
Project = Callable[..., Path]
UseStore = Callable[..., Any]

AUDIT = {"audit": {"sink": "file", "path": "audit.log"}}
HIDDEN = {"claim": "claim-4711", "content": "content-4711", "hook": "hook-4711"}


@pytest.fixture
def folder(project: Project, database: str) -> Path:
    return project(database=database, observability=AUDIT)


@pytest.fixture
def make_run(use_store: UseStore) -> Callable[..., Run]:
    """One run on a thread of its own, with an outcome or waiting in line."""

    def make(
        outcome: RunOutcome | None = None, *, claims: bool = False, owner: str = ALICE, **new: Any
    ) -> Run:
        async def work(store: Any) -> Run:
            thread_id = new.pop("thread_id", None) or (await make_thread(store, owner)).thread_id
            asked = new_run(
                thread_id,
                HIDDEN["content"],
                claims={"user_id": owner, "secret": HIDDEN["claim"]},
                **{"run_id": str(uuid7()), **new},
            )
            started = await store.start_run(owner, asked, claim=claims or outcome is not None)
            if outcome is not None:
                active = started.active
                said = [answer(active)] if outcome.status == "success" else []
                await store.finish_run(active, outcome, said, events(active, 1), claim_next=False)
            found: Run = await store.get_run(owner, thread_id, asked.run_id)
            return found

        made: Run = use_store(work)
        return made

    return make


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [found["run_id"] for found in json.loads(result.stdout)]


def acts(run: Command) -> list[tuple[str, Any]]:
    lines = map(json.loads, run("audit", "tail").stdout.splitlines())
    return [(line["action"], line["details"]) for line in lines]


# Looking


def test_runs_of_all_users_are_listed_newest_first(
    folder: Path, run: Command, make_run: Callable[..., Run]
) -> None:
    failed = make_run(FAILURE)
    waiting = make_run(owner=BOB)
    nobodys = make_run(SUCCESS, owner="")
    head, *lines = run("runs", "list").stdout.splitlines()
    assert head.split() == ["RUN", "ID", "USER", "STATUS", "AGENT", "CREATED", "SECONDS", "ERROR"]
    assert [line.split()[:3] for line in lines] == [
        [nobodys.run_id, "–", "success"],
        [waiting.run_id, "bob", "pending"],
        [failed.run_id, "alice", "error"],
    ]
    assert [line.split()[-1] for line in lines] == ["–", "–", "agent_error"]
    assert [line.split()[-2] == "–" for line in lines] == [False, True, False]
    assert ids(run("runs", "list", "--json", "--user-id", "")) == [nobodys.run_id]


def test_how_long_a_run_has_been_going_on_is_shown(
    folder: Path, run: Command, make_run: Callable[..., Run]
) -> None:
    make_run(claims=True)
    (_, line) = run("runs", "list", "--status", "running").stdout.splitlines()
    assert float(line.split()[-2]) >= 0


def test_the_list_has_what_was_asked_for(
    folder: Path, run: Command, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_PAGE", 2)
    old = make_run(run_id=str(uuid7(1000)))
    failed = make_run(FAILURE, run_id=str(uuid7(2000)))
    theirs = [make_run(owner=BOB).run_id for _ in range(3)][::-1]

    def listed(*options: str) -> list[str]:
        return ids(run("runs", "list", "--json", *options))

    assert listed() == [*theirs, failed.run_id, old.run_id]
    assert listed("--limit", "4") == [*theirs, failed.run_id]
    assert listed("--limit", "1") == theirs[:1]
    assert listed("--status", "pending", "--older-than", "1h") == [old.run_id]
    assert listed("--older-than", "1h") == [failed.run_id, old.run_id]
    assert listed("--older-than", "36500d") == []
    assert listed("--user-id", BOB) == theirs
    assert listed("--user-id", "nobody") == []
    assert listed("--thread-id", old.thread_id) == [old.run_id]
    assert listed("--status", "error", "--user-id", ALICE) == [failed.run_id]


def test_no_runs_are_no_table(folder: Path, run: Command) -> None:
    result = run("runs", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "There are no such runs.\n"
    assert run("runs", "list", "--json").stdout == "[]\n"


def test_a_run_is_shown_with_how_it_failed(
    folder: Path, run: Command, make_run: Callable[..., Run]
) -> None:
    failed = make_run(FAILURE)
    result = run("runs", "show", failed.run_id)
    shown = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert (shown["user_id"], shown["status"], shown["attempt"]) == ("alice", "error", "1")
    assert shown["error"] == "agent_error: The agent failed"
    assert "interrupts" not in shown
    told = json.loads(run("runs", "show", failed.run_id, "--json").stdout)
    assert told["error"] == {"code": "agent_error", "detail": "The agent failed"}
    assert told["ended_at"] >= told["started_at"]


def test_nothing_that_is_said_or_secret_is_shown(
    folder: Path, run: Command, make_run: Callable[..., Run]
) -> None:
    asked = make_run(asking("q1", "q2"), webhook=f"https://h.example:8443/{HIDDEN['hook']}?k=v")
    results = [
        run("runs", *command, *options)
        for command in (["list"], ["show", asked.run_id])
        for options in ([], ["--json"])
    ]
    for result in results:
        assert result.exit_code == 0
        for secret in (*HIDDEN.values(), "question"):
            assert secret not in result.output
    told = json.loads(results[-1].stdout)
    assert (told["webhook"], told["interrupts"]) == ("h.example:8443", ["q1", "q2"])
    assert "interrupts  q1 q2" in results[2].stdout
    assert set(told) == {"user_id", *Run.model_fields}


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
@pytest.mark.parametrize("run_id", ["nothing", "'; DROP TABLE runs; --", "ä\u202e" + "x" * 5000])
def test_an_unknown_run_is_one_line_and_exit_code_1(
    folder: Path, run: Command, command: str, run_id: str
) -> None:
    result = run("runs", command, run_id)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("There is no run ")
    assert "\u202e" not in line
    assert acts(run) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("list --limit 0", "greater than or equal to 1"),
        ("list --limit 10001", "less than or equal to 10000"),
        ("list --limit x", "invalid value for '--limit'"),
        ("list --status finished", "--status: expected one of pending, running,"),
        ("list --older-than 5", "--older-than: expected a time like 30s, 15m, 1h or 90d"),
        ("list --older-than -5m", "--older-than: expected a time like"),
        ("list --older-than 36501d", "--older-than: expected at most 36500d"),
        ("show", "missing argument"),
        ("cancel a b", "unexpected extra argument"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    folder: Path, run: Command, arguments: str, text: str
) -> None:
    result = run("runs", *arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert text in line


@pytest.mark.parametrize("command", ["show", "cancel", "list --user-id"])
def test_bytes_that_are_no_text_are_one_line(folder: Path, run: Command, command: str) -> None:
    result = run("runs", *command.split(), os.fsdecode(b"\xff\xfe"))
    assert (result.exit_code, result.stdout) == (2, "")
    line = "agentflow: invalid value: an argument is not in UTF-8 – see agentflow --help\n"
    assert result.stderr == line


# Cancelling


@pytest.mark.parametrize("how", ["cancel", "rollback"])
def test_a_run_in_the_line_is_cancelled_at_once(
    folder: Path, run: Command, make_run: Callable[..., Run], use_store: UseStore, how: str
) -> None:
    waiting = make_run()
    options = ["--rollback"] if how == "rollback" else []
    result = run("runs", "cancel", waiting.run_id, *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "Cancelled.\n")
    assert "cancelled" in run("runs", "show", waiting.run_id).stdout
    left = use_store(lambda store: list_contents(store, waiting.thread_id))
    assert left == ([HIDDEN["content"]] if how == "cancel" else [])
    known = {"run_id": waiting.run_id, "thread_id": waiting.thread_id, "user_id": ALICE}
    assert acts(run) == [("run.cancel", {**known, "action": how})]


def test_a_run_that_nobody_executes_just_now_is_marked(
    folder: Path, run: Command, make_run: Callable[..., Run], use_store: UseStore
) -> None:
    running = make_run(claims=True)
    result = run("runs", "cancel", running.run_id)
    assert result.exit_code == 0
    assert result.stderr.startswith("Marked: whoever executes it stops it soon")
    (active,) = use_store(lambda store: store.interrupted_runs())
    assert (active.run.run_id, active.stopping) == (running.run_id, "cancel")


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, asking("q1")])
def test_what_has_ended_cannot_be_cancelled(
    folder: Path, run: Command, make_run: Callable[..., Run], outcome: RunOutcome
) -> None:
    ended = make_run(outcome)
    result = run("runs", "cancel", ended.run_id)
    assert (result.exit_code, result.stderr) == (1, "The run has ended\n")
    assert acts(run) == []


# Retrying


def test_a_failed_run_is_sent_again_once(
    folder: Path, run: Command, make_run: Callable[..., Run], use_store: UseStore
) -> None:
    failed = make_run(FAILURE)
    result = run("runs", "retry", failed.run_id)
    assert result.exit_code == 0
    again = result.stdout.strip()
    assert "In line" in result.stderr
    told = json.loads(run("runs", "show", again, "--json").stdout)
    assert (told["status"], told["thread_id"]) == ("pending", failed.thread_id)
    second = run("runs", "retry", failed.run_id)
    assert (second.exit_code, second.stdout) == (1, "")
    assert second.stderr == "The run is not the last one of its thread\n"
    assert ids(run("runs", "list", "--json")) == [again, failed.run_id]
    known = {"run_id": failed.run_id, "thread_id": failed.thread_id, "user_id": ALICE}
    assert acts(run) == [("run.retry", {**known, "new_run_id": again})]
    active = use_store(lambda store: store.claim_next())
    assert active.claims == {"user_id": ALICE, "secret": HIDDEN["claim"]}


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"outcome": SUCCESS}, "'success'"),
        ({"outcome": asking("q1")}, "'interrupted'"),
        ({"claims": True}, "'running'"),
        ({}, "'pending'"),
    ],
)
def test_what_has_not_failed_is_not_sent_again(
    folder: Path,
    run: Command,
    make_run: Callable[..., Run],
    state: Mapping[str, Any],
    why: str,
) -> None:
    found = make_run(**state)
    result = run("runs", "retry", found.run_id)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Only a run that has failed can be retried; this one is {why}\n"
    assert ids(run("runs", "list", "--json")) == [found.run_id]
    assert acts(run) == []


def test_a_run_that_was_rolled_back_has_nothing_to_send(
    folder: Path, run: Command, make_run: Callable[..., Run]
) -> None:
    waiting = make_run()
    assert run("runs", "cancel", waiting.run_id, "--rollback").exit_code == 0
    result = run("runs", "retry", waiting.run_id)
    assert (result.exit_code, result.stderr) == (1, "The message was rolled back\n")


def test_of_two_operators_who_retry_at_once_one_is_enough(
    folder: Path, start: Callable[..., Any], run: Command, make_run: Callable[..., Run]
) -> None:
    failed = make_run(FAILURE)
    commands = [start("runs", "retry", failed.run_id) for _ in range(2)]
    codes = [command.wait() for command in commands]
    again, *others = ids(run("runs", "list", "--json"))
    assert others == [failed.run_id]
    for command, code in zip(commands, codes, strict=True):
        assert (code, command.stdout) in ((0, [again]), (1, []))
    assert 0 in codes


# What cannot be done


@pytest.mark.parametrize("command", ["cancel", "retry"])
def test_nothing_is_done_that_cannot_be_written_down(
    folder: Path, run: Command, make_run: Callable[..., Run], use_store: UseStore, command: str
) -> None:
    found = make_run(FAILURE if command == "retry" else None)
    (folder / "audit.log").mkdir()
    result = run("runs", command, found.run_id)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "observability.audit.path" in result.stderr
    left = use_store(lambda store: store.list_all_runs(limit=9)).data
    assert [(each.run.run_id, each.run.status) for each in left] == [(found.run_id, found.status)]


@pytest.mark.parametrize("command", ["list", "show x", "cancel x", "retry x"])
def test_a_wrong_password_is_one_line_without_it(
    project: Project, run: Command, postgres_url: str, command: str
) -> None:
    user, _, place = postgres_url.partition("@")
    project(database=f"{user.rpartition(':')[0]}:hunter2@{place}")
    result = run("runs", *command.split())
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "the database cannot be used" in line
    assert "password authentication failed" in line
    assert "hunter2" not in line


def test_a_user_without_rights_is_told_so(
    project: Project, run: Command, postgres_url: str, postgres_server: Any
) -> None:
    role = f"reader_{make_id()[:8]}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
    try:
        url = f"postgresql://{role}:hunter2@{postgres_url.partition('@')[2]}"
        project(database=url)
        empty = run("runs", "list")
        assert run("runs", "list", "--database", postgres_url).exit_code == 0
        made = run("runs", "list")
    finally:
        postgres_server.execute(f"DROP ROLE {role}")
    for result in (empty, made):
        assert (result.exit_code, result.stdout) == (2, "")
        (line,) = result.stderr.splitlines()
        assert "permission denied" in line
        assert "hunter2" not in line


# Beside a server

AGENT = """
import asyncio

async def app(messages, config):
    if messages[-1]["content"] == "fail" and len(messages) == 1:
        raise RuntimeError
    if messages[-1]["content"] == "wait":
        await asyncio.sleep(600)
    return "done"
"""


def post(url: str, **body: Any) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def follow(url: str, found: Any) -> str:
    """All events of a run, when it has ended."""
    path = f"{url}/threads/{found['thread_id']}/runs/{found['run_id']}/events"
    with urllib.request.urlopen(path, timeout=60) as answer:
        return str(answer.read().decode())


def test_commands_reach_a_server_that_runs(
    project: Project, database: str, start: Callable[..., Any], run: Command
) -> None:
    project(agent=AGENT, database=database)
    url = start("serve", "--port", "0").wait_for_url()
    threads = [post(f"{url}/threads")["thread_id"] for _ in range(2)]

    def send(thread_id: str, content: str) -> Any:
        return post(f"{url}/threads/{thread_id}/messages", content=content, background=True)

    busy, waiting, failed = (
        send(threads[0], "wait"),
        send(threads[0], "next"),
        send(threads[1], "fail"),
    )
    follow(url, failed)
    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(follow, url, found) for found in (busy, waiting)]
        for found in (waiting, busy):
            assert run("runs", "cancel", found["run_id"]).exit_code == 0
        for stream in streams:
            assert "event: run.cancelled" in stream.result(timeout=60)
    again = run("runs", "retry", failed["run_id"]).stdout.strip()
    assert "event: run.completed" in follow(url, {**failed, "run_id": again})
    assert ids(run("runs", "list", "--json", "--status", "success")) == [again]


def test_what_was_marked_while_no_server_ran_is_cancelled_by_the_next_one(
    project: Project, database: str, start: Callable[..., Any], run: Command
) -> None:
    project(agent=AGENT, database=database, runs={"on_crash": "retry"})
    server = start("serve", "--port", "0")
    url = server.wait_for_url()
    thread_id = post(f"{url}/threads")["thread_id"]
    found = post(f"{url}/threads/{thread_id}/messages", content="wait", background=True)
    server.stop(signal.SIGKILL)
    assert "Marked" in run("runs", "cancel", found["run_id"]).stderr
    url = start("serve", "--port", "0").wait_for_url()
    assert "event: run.cancelled" in follow(url, found)
