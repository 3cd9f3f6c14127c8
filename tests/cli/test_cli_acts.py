"""What operators do is in the audit log; and what cannot be written down there is not done."""

import asyncio
import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from agentflow_server.models import ApiKey
from agentflow_server.stores.sqlite import SqliteStore

Run = Callable[..., Result]
Project = Callable[..., Path]

FILE = {"audit": {"sink": "file", "path": "audit.log"}}
DATABASE = {"audit": {"sink": "database"}}


def stored_keys(folder: Path) -> Sequence[ApiKey]:
    async def list_keys() -> Sequence[ApiKey]:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            return await store.list_api_keys()

    return asyncio.run(list_keys())


def is_revoked(folder: Path) -> bool:
    async def find() -> bool:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            return bool(await store.list_revocations(0.0))

    return asyncio.run(find())


def acts_in(run: Run) -> list[tuple[str, Any]]:
    lines = map(json.loads, run("audit", "tail").stdout.splitlines())
    return [(line["action"], line["details"]) for line in lines]


@pytest.fixture
def folder(project: Project) -> Path:
    return project(auth="api_key", observability=FILE)


@pytest.mark.parametrize("sink", [FILE, DATABASE], ids=["file", "database"])
def test_what_operators_do_is_written_down_with_whom_it_is_about(
    project: Project, run: Run, sink: Any
) -> None:
    folder = project(auth="api_key", observability=sink)
    made = run("api-keys", "create", "--user-id", "alice", "--scope", "admin")
    assert made.exit_code == 0, made.output
    (key,) = stored_keys(folder)
    about = {"key_id": key.key_id, "user_id": "alice"}
    for _ in range(2):  # the second time there is nothing to do
        assert run("api-keys", "revoke", key.key_id).exit_code == 0
    assert run("api-keys", "revoke", "nothing").exit_code == 1
    run("revoke", "--user-id", "bob")
    assert acts_in(run) == [
        ("api_key.create", {**about, "scopes": "admin"}),
        ("api_key.revoke", about),
        ("revoke", {"user_id": "bob"}),
    ]
    secret = made.stdout.strip()
    assert secret not in run("audit", "tail").stdout
    assert len(run("audit", "tail", "--user", "alice").stdout.splitlines()) == 2


def test_keys_that_are_revoked_with_a_user_or_as_a_token_are_written_down_each(
    folder: Path, run: Run
) -> None:
    for user in ("alice", "alice", "bob"):
        assert run("api-keys", "create", "--user-id", user).exit_code == 0
    first, second, third = (key.key_id for key in stored_keys(folder))
    run("revoke", "--user-id", "alice")
    run("revoke", "--token-id", third)
    assert acts_in(run)[3:] == [
        ("revoke", {"user_id": "alice"}),
        ("api_key.revoke", {"key_id": first, "user_id": "alice"}),
        ("api_key.revoke", {"key_id": second, "user_id": "alice"}),
        ("revoke", {"token_id": third}),
        ("api_key.revoke", {"key_id": third, "user_id": "bob"}),
    ]


def make_unusable(folder: Path) -> str:
    (folder / "audit.log").mkdir()
    return "observability.audit.path"


def hold_something_else(folder: Path) -> str:
    (folder / "audit.log").write_text("precious\n", encoding="utf-8")
    return "holds something else than an audit log"


def set_a_weak_key(folder: Path) -> str:
    os.environ["AGENTFLOW_AUDIT_KEY"] = "weak"
    return "AGENTFLOW_AUDIT_KEY"


@pytest.mark.parametrize("break_it", [make_unusable, hold_something_else, set_a_weak_key])
def test_nothing_is_done_that_cannot_be_written_down(
    folder: Path, run: Run, break_it: Callable[[Path], str]
) -> None:
    assert run("api-keys", "create", "--user-id", "bob").exit_code == 0
    (before,) = stored_keys(folder)
    (folder / "audit.log").unlink()
    problem = break_it(folder)
    for command in (
        ("api-keys", "create", "--user-id", "alice"),
        ("api-keys", "revoke", before.key_id),
        ("revoke", "--user-id", "alice"),
    ):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert problem in result.stderr
    assert stored_keys(folder) == [before]
    assert not is_revoked(folder)


def test_a_key_is_shown_also_when_the_log_breaks_after_it_was_made(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("agentflow_server.audit.file.os.write", refuse)
        result = run("api-keys", "create", "--user-id", "alice")
    (key,) = stored_keys(folder)
    assert result.exit_code == 3
    assert result.stdout.startswith(f"afk_{key.key_id}_")
    assert "shown only now" in result.stderr
    assert "This was done, but it is not in the audit log" in result.stderr
    assert "No space left on device" in result.stderr
    assert (folder / "audit.log").read_bytes() == b""


def test_a_database_that_takes_the_key_and_not_the_line_says_so(project: Project, run: Run) -> None:
    folder = project(auth="api_key", observability=DATABASE)
    assert run("api-keys", "list").exit_code == 0

    async def drop() -> None:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            await store.write(lambda connection: connection.execute("DROP TABLE audit_log").close())

    asyncio.run(drop())
    result = run("revoke", "--user-id", "alice")
    assert result.exit_code == 3
    assert "Revoked: refused within 60 seconds" in result.stderr
    assert "no such table: audit_log" in result.stderr
    assert is_revoked(folder)


@pytest.mark.parametrize("sink", ["off", "stdout"])
def test_without_a_log_of_the_servers_the_key_alone_is_printed(
    project: Project, run: Run, sink: str
) -> None:
    project(auth="api_key", observability={"audit": {"sink": sink}})
    result = run("api-keys", "create", "--user-id", "alice")
    assert (result.exit_code, len(result.stdout.split())) == (0, 1)
