"""`agentflow api-keys` and `agentflow revoke`: what they print, store and refuse."""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import Result

from agentflow_server.auth.api_key import split_api_key
from agentflow_server.interfaces import CredentialStore
from agentflow_server.models import ApiKey, Revocation
from agentflow_server.stores.sqlite import SqliteStore

Run = Callable[..., Result]
T = TypeVar("T")

KEY = re.compile(r"afk_[a-z0-9]{12}_[A-Za-z0-9]{49}")


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    return project(auth=[{"method": "jwt", "issuer": "https://i.example.com"}, "api_key"])


def use(folder: Path, action: Callable[[CredentialStore], Awaitable[T]]) -> T:
    async def use() -> T:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            return await action(store)

    return asyncio.run(use())


def stored_keys(folder: Path) -> list[ApiKey]:
    return list(use(folder, lambda store: store.list_api_keys()))


def revocations(folder: Path) -> list[Revocation]:
    return list(use(folder, lambda store: store.list_revocations(0.0)))


def create(run: Run, *arguments: str) -> str:
    result = run("api-keys", "create", "--user-id", "alice", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def test_r61_a_key_is_shown_once_on_stdout_and_only_its_hash_is_kept(
    run: Run, folder: Path
) -> None:
    arguments = ("--scope", "threads:read", "--scope", "admin", "--name", "ci", "--expires", "90d")
    result = run("api-keys", "create", "--user-id", "alice", *arguments)
    assert result.exit_code == 0
    assert KEY.fullmatch(result.stdout.rstrip("\n"))
    parts = split_api_key(result.stdout.strip())
    assert parts is not None
    key_id, secret = parts
    for fact in (key_id, "alice", "ci", "admin threads:read", "shown only now"):
        assert fact in result.stderr
    assert secret not in result.stderr

    found = use(folder, lambda store: store.find_api_key(key_id))
    assert found is not None
    key, secret_hash = found
    assert secret_hash == hashlib.sha256(secret.encode()).digest()
    assert (key.user_id, key.name, key.scopes) == ("alice", "ci", ["admin", "threads:read"])
    assert key.expires_at == key.created_at + timedelta(days=90)
    for listing in (run("api-keys", "list"), run("api-keys", "list", "--json")):
        assert key_id in listing.stdout
        assert secret[:20] not in listing.stdout + listing.stderr
    for file in (folder / ".agentflow").iterdir():
        assert secret[:20].encode() not in file.read_bytes()


def test_a_key_lasts_for_ever_unless_told(run: Run, folder: Path) -> None:
    result = run("api-keys", "create", "--user-id", "alice")
    assert "Expires  never" in result.stderr
    (key,) = stored_keys(folder)
    assert (key.expires_at, key.scopes, key.name) == (None, [], None)


def test_keys_are_listed_with_their_state(run: Run, folder: Path) -> None:
    create(run, "--name", "first \x1b[31m")
    revoked = create(run, "--expires", "1h")
    run("api-keys", "create", "--user-id", "bob", "--expires", "1s")
    _, _, third = stored_keys(folder)
    expired = third.model_copy(
        update={"key_id": "old", "expires_at": datetime.now(UTC) - timedelta(1)}
    )
    use(folder, lambda store: store.add_api_key(expired, bytes(32)))
    assert run("api-keys", "revoke", revoked.split("_")[1]).exit_code == 0

    lines = run("api-keys", "list").stdout.splitlines()
    assert lines[0].split()[:3] == ["KEY", "ID", "USER"]
    assert [line.split()[2] for line in lines[1:3]] == ["valid", "revoked"]
    assert any(line.split()[:3] == ["old", "bob", "expired"] for line in lines)
    assert "first \\x1b[31m" in lines[1]
    assert len(run("api-keys", "list", "--user-id", "bob").stdout.splitlines()) == 3

    listed = json.loads(run("api-keys", "list", "--json").stdout)
    assert [ApiKey(**key) for key in listed] == stored_keys(folder)
    assert "secret" not in str(listed)


def test_without_keys_there_is_nothing_to_list(run: Run, folder: Path) -> None:
    result = run("api-keys", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "There are no API keys.\n")
    assert run("api-keys", "list", "--json").stdout == "[]\n"
    assert (folder / ".agentflow/agentflow.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("whole", [True, False])
def test_a_key_is_revoked_by_its_id_or_by_itself(run: Run, folder: Path, whole: bool) -> None:
    text = create(run)
    (before,) = stored_keys(folder)
    result = run("api-keys", "revoke", text if whole else before.key_id)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "refused from now on" in result.stderr
    (after,) = stored_keys(folder)
    assert after.revoked_at is not None
    # For sockets that a ticket has opened: the key itself is not asked about there again.
    assert [entry.token_id for entry in revocations(folder)] == [before.key_id]
    again = run("api-keys", "revoke", before.key_id)
    assert (again.exit_code, again.stdout) == (0, "")
    assert f"revoked already, at {after.revoked_at:%Y-%m-%dT%H:%MZ}" in again.stderr
    assert stored_keys(folder) == [after]


def test_an_unknown_key_is_said_and_not_repeated(run: Run, folder: Path) -> None:
    text = create(run)
    result = run("api-keys", "revoke", text[:-1])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("There is no such API key")
    assert text[:20] not in result.stderr
    assert [key.revoked_at for key in stored_keys(folder)] == [None]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--expires", "1y"], "--expires: expected a time like 30s, 15m, 1h or 90d, found '1y'"),
        (["--expires", "0d"], "--expires: expected a time like 30s, 15m, 1h or 90d, found '0d'"),
        (["--expires", "999999999d"], "--expires: expected at most 36500d, found '999999999d'"),
        (["--user-id", " "], "api-keys create: the user id is blank"),
        (["--scope", "a b"], "api-keys create: a scope is 1 to 128 characters"),
        (["--scope", "threads:raed"], "there is no 'threads:raed' – did you mean 'threads:read'?"),
        (["--scope", "Threads:read"], "there is no 'Threads:read' – did you mean 'threads:read'?"),
        (["--scope", "amdin"], "there is no 'amdin' – did you mean 'admin'?"),
        (["--database", "x.db"], "--database: expected"),
    ],
)
def test_wrong_arguments_make_no_key(
    run: Run, folder: Path, arguments: list[str], line: str
) -> None:
    result = run("api-keys", "create", "--user-id", "alice", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr
    assert stored_keys(folder) == []


def test_scopes_of_your_own_are_granted(run: Run, folder: Path) -> None:
    create(run, "--scope", "invoices:pay", "--scope", "runs:create", "--scope", "read")
    assert stored_keys(folder)[0].scopes == ["invoices:pay", "read", "runs:create"]


def test_with_an_authorizer_of_your_own_you_know_which_scopes_there_are(
    run: Run, project: Callable[..., Path]
) -> None:
    folder = project(auth="api_key", authorization="project_agent:authorize")
    create(run, "--scope", "thread:read")
    assert stored_keys(folder)[0].scopes == ["thread:read"]


@pytest.mark.parametrize(("auth", "warned"), [("jwt", True), (None, True), ("api_key", False)])
def test_a_key_that_the_server_refuses_is_made_with_a_warning(
    run: Run, project: Callable[..., Path], secret: str, auth: Any, warned: bool
) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    project(auth=auth)
    result = run("api-keys", "create", "--user-id", "alice")
    assert (result.exit_code, bool(KEY.fullmatch(result.stdout.strip()))) == (0, True)
    assert (
        'Warning: the server refuses it, as "auth" has no "api_key".' in result.stderr
    ) is warned


def test_a_wrong_configuration_is_explained(run: Run, tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere.json")
    result = run("api-keys", "list", "--config", missing)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nowhere.json" in result.stderr


def test_a_database_that_is_none_is_explained(run: Run, folder: Path) -> None:
    (folder / "diary.db").write_bytes(b"Dear diary, " * 500)
    result = run("api-keys", "list", "--database", "sqlite:///diary.db")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "diary.db: SQLite cannot use this as a database" in result.stderr


def revoke(run: Run, *arguments: str) -> str:
    result = run("revoke", *arguments)
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    return result.stderr


def test_a_token_is_revoked_for_a_month(run: Run, folder: Path) -> None:
    earliest = datetime.now(UTC).timestamp()
    assert "within 60 seconds" in revoke(
        run, "--token-id", "t1", "--issuer", "https://i.example.com"
    )
    latest = datetime.now(UTC).timestamp()
    (entry,) = revocations(folder)
    assert (entry.token_id, entry.issuer, entry.user_id) == ("t1", "https://i.example.com", None)
    assert earliest - 1e-3 <= entry.at <= latest + 1e-3
    assert entry.expires_at == pytest.approx(entry.at + 30 * 86400)


@pytest.mark.parametrize("time", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00"])
def test_a_user_is_revoked_up_to_a_time(run: Run, folder: Path, time: str) -> None:
    revoke(run, "--user-id", "alice", "--before", time, "--keep", "365d")
    (entry,) = revocations(folder)
    assert (entry.user_id, entry.token_id, entry.issuer) == ("alice", None, None)
    assert entry.at == datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
    assert entry.expires_at > datetime.now(UTC).timestamp() + 364 * 86400


def test_a_revoked_users_keys_stay_revoked_when_the_entry_is_gone(run: Run, folder: Path) -> None:
    create(run)
    create(run)
    run("api-keys", "create", "--user-id", "bob")
    first, second, _ = stored_keys(folder)
    assert "API keys" not in revoke(
        run, "--user-id", "alice", "--before", first.created_at.isoformat()
    )
    assert [key.revoked_at for key in stored_keys(folder)] == [None] * 3
    told = revoke(run, "--user-id", "alice", "--before", second.created_at.isoformat())
    assert "API keys revoked for ever: 1" in told
    assert "API keys revoked for ever: 1" in revoke(run, "--user-id", "alice")
    assert [bool(key.revoked_at) for key in stored_keys(folder)] == [True, True, False]


def test_a_key_id_is_a_token_id_too(run: Run, folder: Path) -> None:
    create(run)
    (key,) = stored_keys(folder)
    issuer = ("--issuer", "https://i.example.com")
    assert "API keys" not in revoke(run, "--token-id", key.key_id, *issuer)
    assert stored_keys(folder) == [key], "of an issuer's is not of ours"
    assert "API keys revoked for ever: 1" in revoke(run, "--token-id", key.key_id)
    assert stored_keys(folder)[0].revoked_at is not None
    assert "API keys" not in revoke(run, "--token-id", key.key_id)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "revoke: expected either --token-id or --user-id"),
        (["--token-id", "t", "--user-id", "u"], "revoke: expected either"),
        (["--token-id", " "], "--token-id: is blank"),
        (["--user-id", ""], "--user-id: is blank"),
        (["--token-id", "t", "--issuer", ""], "--issuer: is blank"),
        (["--token-id", "t", "--before", "2026-01-31T12:00:00Z"], "--before: goes with --user-id"),
        (["--user-id", "u", "--issuer", "i"], "--issuer: goes with --token-id"),
        (["--user-id", "u", "--before", "yesterday"], "--before: expected a time with its offset"),
        (["--user-id", "u", "--before", "2026-01-31"], "--before: expected a time with its offset"),
        (["--user-id", "u", "--before", "2999-01-01T00:00:00Z"], "--before: lies in the future"),
        (["--token-id", "t", "--keep", "soon"], "--keep: expected a time like"),
    ],
)
def test_what_cannot_be_revoked_is_said(
    run: Run, folder: Path, arguments: list[str], line: str
) -> None:
    result: Any = run("revoke", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr
    assert revocations(folder) == []
