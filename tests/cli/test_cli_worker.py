"""`agentflow worker`: executes what servers accept."""

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Project = Callable[..., Path]
Start = Callable[..., Any]

TELLS_WHO_IT_IS = 'import os\ndef app(messages, config):\n    return f"I am {os.getpid()}"\n'
SLOW = """
import os
def app(messages, config):
    with open("begun", "w") as begun:
        begun.write(str(os.getpid()))
    with open("go") as go:
        return "finished " + go.read()
"""


def post(url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


def test_a_worker_executes_what_a_server_leaves_to_it(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(agent=TELLS_WHO_IT_IS, database=postgres_url)
    server = start("serve", "--port", "0", "--no-worker")
    url = server.wait_for_url()
    worker = start("worker")
    worker.wait_for("executing runs")
    thread = post(f"{url}/threads")["thread_id"]
    turn = post(f"{url}/threads/{thread}/messages", {"content": "Hello"})
    assert turn["message"]["content"] == f"I am {worker.process.pid}"
    assert server.stop() == 0
    assert worker.stop() == 0
    assert worker.stdout == []
    assert "Traceback" not in "\n".join(worker.stderr + server.stderr)


def test_what_waits_is_executed_when_a_worker_comes(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(agent=TELLS_WHO_IT_IS, database=postgres_url)
    url = start("serve", "--port", "0", "--no-worker").wait_for_url()
    thread = post(f"{url}/threads")["thread_id"]
    runs = [
        post(f"{url}/threads/{thread}/messages", {"content": "Hello", "background": True})
        for _ in range(3)
    ]
    worker = start("worker")
    path = f"{url}/threads/{thread}/runs/{runs[-1]['run_id']}"
    with urllib.request.urlopen(f"{path}/events", timeout=60) as events:
        assert b"event: run.completed" in events.read()
    answers = [m["content"] for m in get(f"{url}/threads/{thread}/messages")["data"]]
    assert answers == ["Hello", f"I am {worker.process.pid}"] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_stopped_finishes_its_turn(
    project: Project, start: Start, postgres_url: str, number: int
) -> None:
    folder = project(agent=SLOW, database=postgres_url)
    os.mkfifo(folder / "begun")
    os.mkfifo(folder / "go")
    url = start("serve", "--port", "0", "--no-worker").wait_for_url()
    worker = start("worker")
    thread = post(f"{url}/threads")["thread_id"]
    run = post(f"{url}/threads/{thread}/messages", {"content": "Hello", "background": True})
    assert (folder / "begun").read_text(encoding="utf-8") == str(worker.process.pid)
    worker.process.send_signal(number)
    worker.wait_for("waiting up to")
    (folder / "go").write_text("late", encoding="utf-8")
    assert worker.wait() == 0
    assert "Traceback" not in "\n".join(worker.stderr)
    ended = get(f"{url}/threads/{thread}/runs/{run['run_id']}")
    assert (ended["status"], ended["attempt"]) == ("success", 1)


def test_a_worker_needs_a_database_that_can_be_shared(
    project: Project, run: Callable[..., Any]
) -> None:
    project()
    result = run("worker")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("agentflow.json: database: a worker needs one")
    assert "postgresql://" in line


def test_a_worker_without_its_database_is_one_line(project: Project, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    project(database=f"postgresql://somebody:hunter2@127.0.0.1:{port}/there")
    worker = start("worker")
    assert worker.wait() == 2
    (line,) = worker.stderr
    assert "the database cannot be used" in line
    assert "hunter2" not in line


def test_a_worker_with_a_broken_agent_starts_nothing(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(agent="1 / 0\n", database=postgres_url)
    worker = start("worker")
    assert worker.wait() == 2
    assert "ZeroDivisionError: division by zero" in worker.stderr


def test_with_json_logs_a_worker_says_what_it_is(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(database=postgres_url)
    worker = start("worker", "--json-logs")
    worker.wait_for("executing runs")
    assert worker.stop() == 0
    records = [json.loads(line) for line in worker.stderr]
    said = next(record for record in records if record["message"] == "executing runs")
    assert said["agents"] == "agent (project_agent:app)"
    assert postgres_url.partition("@")[2] in said["database"]
    assert postgres_url not in said["database"]
