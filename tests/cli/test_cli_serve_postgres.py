"""`agentflow serve` with PostgreSQL: several processes behind one port."""

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

Project = Callable[..., Path]
Start = Callable[..., Any]

AGENT = """
import os
import socket

def app(messages, config):
    if (gate := messages[-1]["content"]).isdigit():
        with socket.create_connection(("127.0.0.1", int(gate))) as connection:
            connection.sendall(str(os.getpid()).encode())
            connection.recv(1)
    return "done"
"""
ONE_EACH = {"concurrency": 1}
SLOW = """
def app(messages, config):
    with open("begun", "w") as begun:
        begun.write("x")
    with open("go") as go:
        return "finished " + go.read()
"""


def post(url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def say(url: str, content: str = "Hello") -> str:
    thread = post(f"{url}/threads")["thread_id"]
    return str(post(f"{url}/threads/{thread}/messages", {"content": content})["message"]["content"])


def find_workers(url: str, count: int) -> set[int]:
    """The processes there, when there are so many. Each executes one turn at a time, and goes on
    when all are at work."""
    found = set()
    with ExitStack() as stack:
        gate = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        gate.settimeout(60)
        body = {"content": str(gate.getsockname()[1]), "background": True}
        for _ in range(count):
            thread = post(f"{url}/threads")["thread_id"]
            post(f"{url}/threads/{thread}/messages", body)
        for _ in range(count):
            connection = stack.enter_context(gate.accept()[0])
            found.add(int(connection.recv(16)))
    assert len(found) == count
    return found


def find_two_ports() -> int:
    """The first of two neighbours that are free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as one, suppress(OSError):
            port = int(one.getsockname()[1])
            socket.create_server(("127.0.0.1", port + 1)).close()
            return port


def is_over(running: Any) -> bool:
    """Nobody holds its output any more: every process of it has ended."""
    return not any(reader.is_alive() for reader in running._readers)


def test_several_processes_share_the_port_and_end_together(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(agent=AGENT, database=postgres_url, runs=ONE_EACH)
    server = start("serve", "--port", "0", "--workers", "2")
    url = server.wait_for_url()
    workers = find_workers(url, 2)
    assert server.process.pid not in workers
    assert server.stop() == 0
    assert is_over(server)
    assert len([line for line in server.stdout if "URL" in line]) == 1
    assert "Traceback" not in "\n".join(server.stderr)


def test_a_process_that_is_killed_is_replaced(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(agent=AGENT, database=postgres_url, runs=ONE_EACH)
    server = start("serve", "--port", "0", "--workers", "2")
    url = server.wait_for_url()
    workers = find_workers(url, 2)
    for victim in workers:  # the one that announced itself is nothing special
        os.kill(victim, signal.SIGKILL)
        server.wait_for("ended with -9; another one takes its place")
        assert say(url) == "done"
        assert victim not in find_workers(url, 2)
    assert server.stop() == 0
    assert is_over(server)


def test_a_process_cannot_be_replaced_as_long_as_the_configuration_is_wrong(
    project: Project, start: Start, postgres_url: str
) -> None:
    folder = project(agent=AGENT, database=postgres_url, runs=ONE_EACH)
    server = start("serve", "--port", "0", "--workers", "2")
    url = server.wait_for_url()
    victim, _ = find_workers(url, 2)
    written = (folder / "agentflow.json").read_text(encoding="utf-8")
    (folder / "agentflow.json").write_text("{", encoding="utf-8")
    os.kill(victim, signal.SIGKILL)
    server.wait_for("ended with 2; another one takes its place")
    assert say(url) == "done"
    (folder / "agentflow.json").write_text(written, encoding="utf-8")
    assert victim not in find_workers(url, 2)
    assert server.stop() == 0


@pytest.mark.parametrize("flag", ["--workers=2", "--no-worker"])
def test_a_file_cannot_be_shared(project: Project, run: Callable[..., Any], flag: str) -> None:
    project()
    result = run("serve", "--port", "0", flag)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(flag.partition("=")[0])
    assert "postgresql://" in line


def test_several_processes_are_not_reloaded(project: Project, run: Callable[..., Any]) -> None:
    project()
    result = run("serve", "--port", "0", "--workers=2", "--reload")
    assert result.exit_code == 2
    assert "--reload and --workers exclude each other" in result.stderr


def test_what_keeps_all_of_them_from_starting_is_said_once(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(agent="1 / 0\n", database=postgres_url)
    server = start("serve", "--port", "0", "--workers", "4")
    assert server.wait() == 2
    assert is_over(server)
    assert server.stdout == []
    assert server.stderr.count("ZeroDivisionError: division by zero") == 1


def test_a_database_that_nobody_serves_is_one_line(
    project: Project, start: Start, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    project(database=f"postgresql://somebody:hunter2@127.0.0.1:{port}/there")
    for arguments in (["--workers", "3"], []):
        server = start("serve", "--port", "0", *arguments)
        assert server.wait() == 2
        (line,) = server.stderr
        assert f"postgresql://127.0.0.1:{port}/there: the database cannot be used" in line
        assert "hunter2" not in line


def test_processes_end_when_nobody_watches_over_them(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(agent=AGENT, database=postgres_url, runs=ONE_EACH)
    server = start("serve", "--port", "0", "--workers", "2")
    find_workers(server.wait_for_url(), 2)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert is_over(server)
    assert "Traceback" not in "\n".join(server.stderr)


def test_running_turns_finish_after_sigterm(
    project: Project, start: Start, postgres_url: str
) -> None:
    folder = project(agent=SLOW, database=postgres_url)
    os.mkfifo(folder / "begun")
    os.mkfifo(folder / "go")
    server = start("serve", "--port", "0", "--workers", "2")
    url = server.wait_for_url()
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(say, url)
        (folder / "begun").read_text(encoding="utf-8")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        (folder / "go").write_text("late", encoding="utf-8")
        assert reply.result(timeout=60) == "finished late"
    assert server.wait() == 0


def test_nobody_is_let_in_who_would_not_be_answered(
    project: Project, start: Start, postgres_url: str
) -> None:
    """While a turn keeps a process from ending, the port is closed: whoever comes goes elsewhere."""
    folder = project(agent=SLOW, database=postgres_url)
    os.mkfifo(folder / "begun")
    os.mkfifo(folder / "go")
    server = start("serve", "--port", "0", "--workers", "2")
    url = server.wait_for_url()
    port = int(url.rpartition(":")[2])
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(say, url)
        (folder / "begun").read_text(encoding="utf-8")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("waiting up to")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        (folder / "go").write_text("late", encoding="utf-8")
        assert reply.result(timeout=60) == "finished late"
    assert server.wait() == 0


@pytest.mark.parametrize("moment", ["at once", "when it serves"])
def test_ctrl_c_in_a_terminal_ends_all_of_them_without_a_traceback(
    project: Project, start: Start, postgres_url: str, moment: str
) -> None:
    project(database=postgres_url, agent='print("loading", flush=True)\n' + AGENT)
    server = start("serve", "--port", "0", "--workers", "2", group=True)
    if moment == "at once":
        server.wait_for("loading")
    else:
        server.wait_for_url()
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.wait() == 0
    assert is_over(server)
    assert "Traceback" not in "\n".join([*server.stdout, *server.stderr])


def test_each_process_has_metrics_of_its_own(
    project: Project, start: Start, postgres_url: str
) -> None:
    port = find_two_ports()
    project(
        agent=AGENT,
        database=postgres_url,
        runs=ONE_EACH,
        observability={"metrics": {"port": port}},
    )
    server = start("serve", "--port", "0", "--workers", "2")
    find_workers(server.wait_for_url(), 2)
    for number in range(2):
        with urllib.request.urlopen(f"http://127.0.0.1:{port + number}/metrics") as answer:
            assert b"agentflow" in answer.read()
    assert server.stop() == 0
