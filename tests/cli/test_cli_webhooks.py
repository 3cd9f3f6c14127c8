"""`agentflow webhooks`: what has not arrived, and once more."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import Result

from agentflow_server.testing.store_data import SUCCESS, make_thread, start

Command = Callable[..., Result]
Project = Callable[..., Path]
UseStore = Callable[..., Any]

SETTINGS = {"webhooks": {"secret": "HOOK_SECRET", "allow_private": True}, "env": ".env"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw1DDiGRPXvnA="
PATH = "/path-4711?key=value-4711"


@pytest.fixture
def folder(project: Project, database: str) -> Path:
    audit = {"audit": {"sink": "file", "path": "audit.log"}}
    folder = project(database=database, observability=audit, **SETTINGS)
    (folder / ".env").write_text(f"HOOK_SECRET={SECRET}\n", encoding="utf-8")
    return folder


@pytest.fixture
def leave_delivery(use_store: UseStore) -> Callable[..., str]:
    """What was given up, or is still due: the id of its run."""

    def leave(url: str, failure: str | None = None, *, under_way: bool = False) -> str:
        async def work(store: Any) -> str:
            thread = await make_thread(store)
            active = await start(store, thread.thread_id, webhook=url)
            await store.finish_run(active, SUCCESS, [], [])
            if failure is not None or under_way:
                delivery = await store.claim_delivery(seconds=600, max_bytes=1000)
                if failure is not None:
                    await store.postpone_delivery(delivery, failure, seconds=None)
            return active.run.run_id

        found: str = use_store(work)
        return found

    return leave


def test_what_has_not_arrived_is_listed(
    folder: Path, run: Command, leave_delivery: Callable[..., str]
) -> None:
    given_up = leave_delivery(f"http://old.example{PATH}", "status 500")
    due = leave_delivery(f"http://new.example:8080{PATH}")
    result = run("webhooks", "list")
    head, first, second = result.stdout.splitlines()
    assert head.split()[-4:] == ["HOST", "ATTEMPTS", "NEXT", "FAILURE"]
    assert due in first
    assert "new.example:8080  0" in first
    assert given_up in second
    assert second.endswith("old.example       1         given up           status 500")
    listed = run("webhooks", "list", "--json")
    assert [found["run_id"] for found in json.loads(listed.stdout)] == [due, given_up]
    assert len(json.loads(run("webhooks", "list", "--json", "--limit", "1").stdout)) == 1
    assert "4711" not in result.output + listed.output


def test_nothing_that_has_not_arrived_is_no_table(folder: Path, run: Command) -> None:
    result = run("webhooks", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Everything has been delivered.\n"
    assert run("webhooks", "list", "--json").stdout == "[]\n"


def test_one_that_was_given_up_becomes_due_again(
    folder: Path, run: Command, leave_delivery: Callable[..., str]
) -> None:
    leave_delivery(f"http://old.example{PATH}", "status 500")
    (before,) = json.loads(run("webhooks", "list", "--json").stdout)
    result = run("webhooks", "retry", before["delivery_id"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("Due: ")
    (after,) = json.loads(run("webhooks", "list", "--json").stdout)
    assert (before["due_at"], after["attempt"]) == (None, 0)
    assert after["due_at"] is not None
    (act,) = map(json.loads, run("audit", "tail").stdout.splitlines())
    assert act["action"] == "webhook.retry"
    assert act["details"] == {"delivery_id": before["delivery_id"]}


def test_an_unknown_one_and_one_that_is_under_way_are_left_alone(
    folder: Path, run: Command, leave_delivery: Callable[..., str]
) -> None:
    leave_delivery("http://old.example", under_way=True)
    (found,) = json.loads(run("webhooks", "list", "--json").stdout)
    for delivery_id in (found["delivery_id"], "nothing"):
        result = run("webhooks", "retry", delivery_id)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("There is no such delivery, or it is under way just now;")
    assert json.loads(run("webhooks", "list", "--json").stdout) == [found]
    assert run("audit", "tail").stdout == ""


def test_without_webhooks_in_the_file_it_says_that_nobody_sends_them(
    project: Project, database: str, run: Command, leave_delivery: Callable[..., str]
) -> None:
    project(database=database)
    leave_delivery("http://old.example")
    assert 'has no "webhooks"' in run("webhooks", "list").stderr


@pytest.mark.parametrize("arguments", ["list --limit 0", "list --limit x", "retry", "frob"])
def test_wrong_arguments_are_one_line(folder: Path, run: Command, arguments: str) -> None:
    result = run("webhooks", *arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


class Receiver:
    """Answers on 127.0.0.1, first with failures."""

    def __init__(self, *statuses: int) -> None:
        left = list(statuses)
        paths: list[str] = []

        class Reply(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                paths.append(self.path)
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(left.pop(0) if left else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.paths = paths
        self.server = HTTPServer(("127.0.0.1", 0), Reply)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self._thread = Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


def test_a_server_that_runs_sends_it_again(
    folder: Path, run: Command, start: Callable[..., Any], leave_delivery: Callable[..., str]
) -> None:
    receiver = Receiver(410)  # which says that it wants nothing more
    try:
        server = start("serve", "--port", "0")
        server.wait_for_url()
        leave_delivery(receiver.url)  # by a process that tells the server nothing
        server.wait_for("given up")
        (found,) = json.loads(run("webhooks", "list", "--json").stdout)
        assert found["failure"] == "status 410"
        assert run("webhooks", "retry", found["delivery_id"]).exit_code == 0
        server.wait_for("has it")
        assert run("webhooks", "list", "--json").stdout == "[]\n"
        assert receiver.paths == ["/hook"] * 2
    finally:
        receiver.close()
