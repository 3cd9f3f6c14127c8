"""`agentflow audit`: verify and tail, for files and the database."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from agentflow_server.audit.chain import START, Chain, parse_line
from agentflow_server.audit.file import AuditFile
from agentflow_server.cli.acts import open_log
from agentflow_server.cli.database import open_database
from agentflow_server.config import read_config
from agentflow_server.models import AuditEvent

Run = Callable[..., Any]
Project = Callable[..., Path]

KEY = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6"
FILE = {"audit": {"sink": "file", "path": "audit.log"}}
DATABASE = {"audit": {"sink": "database"}}


def make_event(user: str) -> AuditEvent:
    return AuditEvent(1_700_000_000.0, "authenticate", "success", user_id=user)


def write_file(path: Path, *users: str) -> None:
    async def write() -> None:
        await AuditFile(path, Chain()).append([make_event(user) for user in users])

    anyio.run(write)


def write_configured(*users: str) -> None:
    async def write() -> None:
        config = read_config()
        async with open_database(config) as database:
            log = await open_log(config, database)
            if log is not None:
                await log.append([make_event(user) for user in users])

    anyio.run(write)


def users_in(output: str) -> Sequence[str]:
    return [json.loads(line)["user_id"] for line in output.splitlines()]


@pytest.fixture(params=[FILE, DATABASE], ids=["file", "database"])
def folder(request: pytest.FixtureRequest, project: Project) -> Path:
    """A project with a log of three lines."""
    path = project(observability=request.param)
    write_configured("alice", "bob", "alice")
    return path


@pytest.mark.usefixtures("folder")
def test_an_untouched_log_verifies(run: Run) -> None:
    result = run("audit", "verify")
    assert result.exit_code == 0
    assert "Lines: 3; the last is seq 3, hash " in result.stdout
    assert "None was changed, removed or moved." in result.stdout
    assert "AGENTFLOW_AUDIT_KEY" in result.stdout


@pytest.mark.usefixtures("folder")
def test_the_newest_lines_are_shown(run: Run) -> None:
    assert users_in(run("audit", "tail").stdout) == ["alice", "bob", "alice"]
    assert users_in(run("audit", "tail", "-n", "2").stdout) == ["bob", "alice"]
    assert run("audit", "tail", "-n", "0").stdout == ""


@pytest.mark.usefixtures("folder")
def test_one_users_lines_are_shown(run: Run) -> None:
    assert users_in(run("audit", "tail", "--user", "alice").stdout) == ["alice", "alice"]
    assert users_in(run("audit", "tail", "--user", "bob", "-n", "1").stdout) == ["bob"]
    assert run("audit", "tail", "--user", "ali").stdout == ""


def test_whoever_reads_as_admin_what_is_hers_is_among_a_users_lines(
    project: Project, run: Run
) -> None:
    log = project(observability=FILE) / "audit.log"
    read = AuditEvent(0.0, "read_as_admin", "success", user_id="root", details={"owner": "alice"})
    act = AuditEvent(0.0, "api_key.revoke", "success", details={"user_id": "alice"})
    lines = Chain().extend(START, [make_event("bob"), read, act, make_event("alice")])[0]
    log.write_text("".join(f"{line}\n" for line in [*lines, '{"details": 1}']), encoding="utf-8")
    shown = run("audit", "tail", "--user", "alice").stdout.splitlines()
    assert shown == list(lines[1:])
    assert run("audit", "tail", "--user", "bob").stdout.splitlines() == [lines[0]]


def cut_off(folder: Path, count: int) -> None:
    """Remove the last lines, in the file or in the table."""
    log = folder / "audit.log"
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text("".join(lines[:-count]), encoding="utf-8")
        return
    with closing(sqlite3.connect(folder / ".agentflow" / "agentflow.db")) as database:
        newest = "SELECT position FROM audit_log ORDER BY position DESC LIMIT ?"
        database.execute(f"DELETE FROM audit_log WHERE position IN ({newest})", (count,))
        database.commit()


def test_r84_an_end_that_was_cut_off_is_found(folder: Path, run: Run) -> None:
    cut_off(folder, 2)
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert "ends with seq 1, though seq 3 was written: its end was cut off" in result.stderr
    assert "None was changed" not in result.stdout


def test_r84_an_end_that_was_cut_off_is_missed_when_writing_goes_on(folder: Path, run: Run) -> None:
    cut_off(folder, 2)
    write_configured("carol")
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert "seq 4: before it 2–3 is missing" in result.stderr
    lines = [json.loads(line) for line in run("audit", "tail").stdout.splitlines()]
    assert [line["seq"] for line in lines] == [1, 4, 5]
    assert (lines[1]["action"], lines[1]["result"]) == ("audit.truncated", "error")
    assert lines[1]["details"] == {"found": "1", "written": "3"}


def test_r84_a_log_that_was_emptied_is_found(folder: Path, run: Run) -> None:
    cut_off(folder, 3)
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert "is empty, though 3 lines were written" in result.stderr
    assert run("audit", "verify", "--part").exit_code == 0


def test_r84_another_last_line_is_found(project: Project, run: Run) -> None:
    log = project(observability=FILE) / "audit.log"
    write_file(log, "alice", "bob")
    first = parse_line(log.read_text(encoding="utf-8").splitlines()[0])
    assert first
    cut_off(log.parent, 1)
    forged = Chain().extend(first.link, [make_event("mallory")])[0]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{forged[0]}\n")
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert "seq 2: is not the line that was written last" in result.stderr


def test_a_mark_that_cannot_be_read_is_named(project: Project, run: Run) -> None:
    path = project(observability=FILE) / "audit.log"
    path.touch()
    path.with_name(".audit.log.head").mkdir()
    result = run("audit", "verify")
    assert result.exit_code == 2
    assert ".audit.log.head: cannot be read: Is a directory" in result.stderr


def test_r84_a_damaged_file_is_told_line_by_line(project: Project, run: Run) -> None:
    path = project(observability=FILE) / "audit.log"
    write_file(path, "alice", "bob", "carol", "dave")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace("bob", "eve")
    del lines[2]
    path.write_text("\n".join([*lines, "\x1b[2Jgarbage"]), encoding="utf-8")
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{path}:2: seq 2: was changed, or written with another key",
        f"{path}:3: seq 4: before it seq 3 is missing",
        f"{path}:4: is not a line of an audit log",
    ]
    assert "None was changed" not in result.stdout
    assert "\x1b" not in run("audit", "tail").stdout


def test_endless_damage_is_told_in_short(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "noise"
    path.write_text("garbage\n" * 1000, encoding="utf-8")
    result = run("audit", "verify", str(path))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 51
    assert result.stderr.splitlines()[-1] == "… and 950 more"


def test_rotated_files_are_verified_together_or_as_parts(tmp_path: Path, run: Run) -> None:
    old, new = tmp_path / "audit.log.1", tmp_path / "audit.log"
    lines = Chain().extend(START, map(make_event, "abcd"))[0]
    old.write_text("".join(f"{line}\n" for line in lines[:2]), encoding="utf-8")
    new.write_text("".join(f"{line}\n" for line in lines[2:]), encoding="utf-8")
    assert run("audit", "verify", str(old), str(new)).exit_code == 0
    assert run("audit", "verify", "--part", str(new)).exit_code == 0
    result = run("audit", "verify", str(new))
    assert result.exit_code == 1
    assert "before it 1–2 is missing" in result.stderr


def test_the_key_may_be_in_the_dotenv_file(project: Project, run: Run) -> None:
    folder = project(observability=FILE, env=".env")
    (folder / ".env").write_text(f"AGENTFLOW_AUDIT_KEY={KEY}\n", encoding="utf-8")
    lines = Chain(KEY.encode()).extend(START, [make_event("alice")])[0]
    (folder / "audit.log").write_text(f"{lines[0]}\n", encoding="utf-8")
    result = run("audit", "verify")
    assert result.exit_code == 0
    assert "AGENTFLOW_AUDIT_KEY" not in result.stdout
    del os.environ["AGENTFLOW_AUDIT_KEY"]
    assert run("audit", "verify", "audit.log").exit_code == 1
    assert run("audit", "verify", "--config", "agentflow.json", "audit.log").exit_code == 0


@pytest.mark.parametrize("sink", ["off", "stdout"])
def test_without_a_log_there_is_nothing_to_read(sink: str, project: Project, run: Run) -> None:
    project(observability={"audit": {"sink": sink}})
    for command in ("verify", "tail"):
        result = run("audit", command)
        assert result.exit_code == 2
        assert f'the sink is "{sink}"' in result.stderr


def test_a_file_that_is_missing_is_named(project: Project, run: Run) -> None:
    project(observability=FILE)
    result = run("audit", "verify")
    assert result.exit_code == 2
    assert "audit.log: cannot be read: No such file" in result.stderr


def test_an_act_is_not_written_to_the_output_of_a_command(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project(observability={"audit": {"sink": "stdout"}})
    write_configured("alice")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("sink", [FILE, DATABASE], ids=["file", "database"])
def test_following_shows_what_comes(
    sink: dict[str, Any], project: Project, start: Callable[..., Any]
) -> None:
    folder = project(observability=sink)
    write_configured("alice", "bob")
    running = start("audit", "tail", "--follow", "-n", "1")
    running.wait_for('"bob"')
    write_configured("carol")
    running.wait_for('"carol"')
    if sink is FILE:
        (folder / "audit.log").rename(folder / "audit.log.1")
        write_configured("dave")
        running.wait_for('"dave"')
        os.truncate(folder / "audit.log", 0)
        write_file(folder / "audit.log", "x")
        running.wait_for('"x"')
    assert running.stop(signal.SIGINT) == 0
    assert not any("alice" in line for line in running.stdout)
    assert running.stderr == []


def test_a_command_goes_on_with_the_chain_of_a_server_whose_log_was_renamed(
    project: Project, run: Run, start: Callable[..., Any], secret: str
) -> None:
    folder = project(observability=FILE, auth="jwt", env=".env")
    (folder / ".env").write_text(f"JWT_SECRET_KEY={secret}\n", encoding="utf-8")
    log, old = folder / "audit.log", folder / "audit.log.1"
    server = start("serve", "--port", "0")
    url = server.wait_for_url()
    assert httpx2.get(f"{url}/threads").status_code == 401
    follower = start("audit", "tail", "--follow")
    follower.wait_for('"authenticate"')
    log.rename(old)
    assert run("revoke", "--user-id", "alice").exit_code == 0
    assert httpx2.get(f"{url}/threads").status_code == 401
    assert server.stop() == 0
    follower.stop(signal.SIGINT)
    result = run("audit", "verify", str(old), str(log))
    assert (result.exit_code, result.stderr) == (0, "")
    lines = log.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["revoke", "authenticate"]


def test_help_waits_for_no_framework(run: Run) -> None:
    assert "verify" in run("audit", "--help").stdout
    script = "import sys, agentflow_server.cli; print('agentflow_server.audit' in sys.modules)"
    shown = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert shown == "False\n"
