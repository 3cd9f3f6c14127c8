"""`agentflow serve --shutdown-delay`: still there while the load balancer finds out."""

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from typer.testing import Result

Project = Callable[..., Path]
Start = Callable[..., Any]

ANNOUNCED = "not ready any more; listening for another"


def ask(url: str, body: Any = None) -> tuple[int, Any, str | None]:
    """Over a connection of its own: status, JSON, and what becomes of the connection."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer), answer.headers["Connection"]
    except HTTPError as refused:
        with refused:
            return refused.code, json.load(refused), refused.headers["Connection"]


def expect_full_service(url: str) -> None:
    status, told, connection = ask(f"{url}/health/ready")
    assert (status, told["code"], connection) == (503, "server_stopping", "close")
    _, thread, _ = ask(f"{url}/threads", {})
    status, turn, connection = ask(
        f"{url}/threads/{thread['thread_id']}/messages", {"content": "Hello"}
    )
    assert (status, turn["message"]["content"], connection) == (200, "echo Hello", "close")


def test_all_requests_are_answered_until_ctrl_c_comes_again(project: Project, start: Start) -> None:
    project()
    server = start("serve", "--port", "0", "--shutdown-delay", "600")
    url = server.wait_for_url()
    assert ask(f"{url}/health/ready")[0] == 200
    server.process.send_signal(signal.SIGTERM)
    server.wait_for(f"{ANNOUNCED} 600 s")
    for _ in range(2):
        expect_full_service(url)
    assert server.stop(signal.SIGINT) == 1
    assert "Traceback" not in "\n".join(server.stderr)


SLEEPY = """
import time

def app(messages, config):
    print("begun", flush=True)
    time.sleep(600)
"""


def test_ctrl_c_twice_waits_for_no_turn(project: Project, start: Start) -> None:
    project(agent=SLEEPY, runs={"shutdown_grace": 600})
    server = start("serve", "--port", "0")
    url = server.wait_for_url()
    _, thread, _ = ask(f"{url}/threads", {})
    ask(f"{url}/threads/{thread['thread_id']}/messages", {"content": "Hi", "background": True})
    server.wait_for("begun")
    server.process.send_signal(signal.SIGINT)
    server.wait_for("waiting up to 600 s")
    assert server.stop(signal.SIGINT) == 1
    assert "Traceback" not in "\n".join(server.stderr)


def test_when_the_time_is_over_it_ends_by_itself(project: Project, start: Start) -> None:
    project()
    server = start("serve", "--port", "0", "--shutdown-delay", "0.3")
    server.wait_for_url()
    assert server.stop() == 0
    said = "\n".join(server.stderr)
    assert said.index(f"{ANNOUNCED} 0.3 s") < said.index("stopping; running requests may finish")


def test_without_a_delay_nothing_is_said_of_it(project: Project, start: Start) -> None:
    project()
    server = start("serve", "--port", "0")
    server.wait_for_url()
    assert server.stop() == 0
    assert ANNOUNCED not in "\n".join(server.stderr)


GATED = """
import socket

def app(messages, config):
    if (gate := messages[-1]["content"]).isdigit():
        with socket.create_connection(("127.0.0.1", int(gate))) as connection:
            connection.recv(1)
    return "echo " + gate
"""


def wait_for_both(url: str) -> None:
    """Two processes serve: each executes one turn at a time, and both go on at once."""
    with socket.create_server(("127.0.0.1", 0)) as gate, ExitStack() as connections:
        gate.settimeout(60)
        body = {"content": str(gate.getsockname()[1]), "background": True}
        for _ in range(2):
            _, thread, _ = ask(f"{url}/threads", {})
            ask(f"{url}/threads/{thread['thread_id']}/messages", body)
        for _ in range(2):
            connections.enter_context(gate.accept()[0])


def test_several_processes_wait_together_and_end_at_once_when_told_twice(
    project: Project, start: Start, postgres_url: str
) -> None:
    project(agent=GATED, database=postgres_url, runs={"concurrency": 1})
    server = start("serve", "--port", "0", "--workers", "2", "--shutdown-delay", "600", group=True)
    url = server.wait_for_url()
    wait_for_both(url)
    os.killpg(server.process.pid, signal.SIGINT)
    for _ in range(2):
        server.wait_for(ANNOUNCED)
    expect_full_service(url)
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.wait() == 1
    assert "Traceback" not in "\n".join([*server.stdout, *server.stderr])


@pytest.mark.parametrize("seconds", ["-1", "601", "soon", "nan"])
def test_a_delay_that_is_none_is_refused(
    project: Project, run: Callable[..., Result], seconds: str
) -> None:
    project()
    result = run("serve", "--port", "0", "--shutdown-delay", seconds)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
