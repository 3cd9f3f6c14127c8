"""Operators make and revoke credentials with the command while a server runs."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

AGENT = """
import gate

def app(messages, config):
    gate.pass_through("agent")
    return "done"
"""


@pytest.fixture
def command(tmp_path: Path, environment: Callable[..., dict[str, str]]) -> Callable[..., str]:
    """`agentflow …` in a process of its own; returns its stdout."""

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "agentflow_server", *arguments], cwd=tmp_path, env=environment(),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return command


def test_the_commands_disturb_no_running_turn(
    write: Any, start: Any, gate: Any, command: Any, new_thread: Any, say: Any, history: Any
) -> None:
    server = start(write({"agent.py": AGENT}), GATE=gate.port)
    thread_id = new_thread(server.http)
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(say, server.client(), thread_id, "Hello")
        held = gate.wait()
        text = command("api-keys", "create", "--user-id", "alice").strip()
        (key,) = json.loads(command("api-keys", "list", "--json"))
        assert text.startswith(f"afk_{key['key_id']}_")
        command("api-keys", "revoke", text)
        command("revoke", "--user-id", "alice")
        (revoked,) = json.loads(command("api-keys", "list", "--json"))
        assert revoked["revoked_at"] is not None
        assert server.http.get(f"/threads/{thread_id}").json()["status"] == "busy"
        held.let_go()
        assert turn.result() == "done"
    assert history(server.http, thread_id) == ["user Hello", "assistant done"]
    assert server.stop() == 0
    assert "ERROR" not in server.output
    (kept,) = json.loads(command("api-keys", "list", "--json"))
    assert kept == revoked


def test_keys_may_be_made_before_the_first_start(
    write: Any, start: Any, command: Any, new_thread: Any
) -> None:
    folder = write({})
    command("api-keys", "create", "--user-id", "alice")
    server = start(folder)
    new_thread(server.http)
    assert len(json.loads(command("api-keys", "list", "--json"))) == 1
    assert server.stop() == 0
