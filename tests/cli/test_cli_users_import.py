"""`agentflow users import`: all users of a file or none, and every problem with its line."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from agentflow_server.errors import IdTaken
from agentflow_server.models import User
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.users.hashes import PARAMETERS, Argon2id, make_dummy_hash
from agentflow_server.users.login import find_verified_user
from agentflow_server.users.passwords import Passwords

Run = Callable[..., Result]

HASH = make_dummy_hash(PARAMETERS)
GOOD = "tea kettle sings at noon"


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    audit = {"audit": {"sink": "file", "path": "audit.log"}}
    return project(auth="api_key", observability=audit)


def stored_users(folder: Path) -> list[User]:
    async def read() -> list[User]:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            return (await store.list_users(limit=99)).data

    return asyncio.run(read())


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return name


JSON_LINES = (
    json.dumps(
        {
            "username": "Alice",
            "roles": ["admin"],
            "scopes": ["threads:read"],
            "claims": {"department": "sales"},
            "password_hash": HASH,
        }
    )
    + '\n\n{"username": "bob"}\n'
)
CSV = (
    "username,roles,scopes,claims,password_hash\r\n"
    f'Alice,admin,threads:read,"{{""department"": ""sales""}}","{HASH}"\r\n'
    "bob,,,,\r\n"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("users.jsonl", JSON_LINES),
        ("users.ndjson", JSON_LINES),
        ("users.csv", CSV),
        ("users.csv", CSV.replace("\r\n", "\n")),
        ("users.csv", "\ufeff" + CSV),
    ],
)
def test_all_users_of_a_file_are_added(run: Run, folder: Path, name: str, text: str) -> None:
    result = run("users", "import", write(folder, name, text))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Users added: 2" in result.stderr
    assert 'Without a password, which "agentflow users set-password" gives them: 1' in result.stderr
    alice, bob = stored_users(folder)
    assert (alice.username, alice.roles, alice.scopes) == ("alice", ["admin"], ["threads:read"])
    assert alice.claims == {"department": "sales"}
    assert alice.password_changed_at == alice.created_at
    assert (bob.username, bob.roles, bob.password_changed_at) == ("bob", [], None)
    lines = [json.loads(line) for line in (folder / "audit.log").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["user.add"] * 2
    assert [line["details"]["user_id"] for line in lines] == [alice.user_id, bob.user_id]
    assert "argon2id" not in (folder / "audit.log").read_text()


def test_who_is_imported_logs_in_with_the_password_he_had(run: Run, folder: Path) -> None:
    theirs = Passwords(parameters=Argon2id(memory=65_536, passes=1, lanes=2))
    hash_ = asyncio.run(theirs.hash(GOOD))
    line = json.dumps({"username": "alice", "password_hash": hash_})
    result = run("users", "import", write(folder, "users.jsonl", line))
    assert result.stderr == "Users added: 1\n"

    async def log_in() -> str:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            assert await find_verified_user(store, Passwords(), "alice", GOOD + "!") is None
            assert await find_verified_user(store, Passwords(), "alice", GOOD) is not None
            found = await store.find_user_by_name("alice")
            assert found is not None
            return str(found[1].password_hash)

    assert asyncio.run(log_in()).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    ("name", "text", "problems"),
    [
        ("users.jsonl", "", ["users.jsonl: expected 1 to 10000 users, found 0"]),
        ("users.csv", "username\n", ["users.csv: expected 1 to 10000 users, found 0"]),
        ("users.txt", "alice", ["users.txt: expected a name that ends in .jsonl or .csv"]),
        ("users.jsonl", b"\xff", ["users.jsonl: expected text in UTF-8"]),
        (
            "users.jsonl",
            (
                '{"username": "bob"}\n{"username": "al ice"}\nnonsense\n[1]\n{"roles": []}\n'
                '{"username": "carol", "role": ["a"]}\n{"username": "carol", "roles": "admin"}\n'
                '{"username": "carol", "roles": [1]}\n{"username": "carol", "claims": []}\n'
                '{"username": "carol", "claims": {"sub": "x"}}\n'
                '{"username": "carol", "password_hash": "hunter2"}\n{"username": 7}\n'
                '{"username": "dave", "username": "eve"}\n{"username": "BOB"}\n'
            ),
            [
                "users.jsonl, line 2: a username is made of",
                "users.jsonl, line 3: not valid JSON",
                "users.jsonl, line 4: Input should be",
                "users.jsonl, line 5: username: Field required",
                "users.jsonl, line 6: role: unknown; expected username, roles, scopes, claims, pass",
                "users.jsonl, line 7: roles: Input should be a valid list",
                "users.jsonl, line 8: roles.0: Input should be a valid string",
                "users.jsonl, line 9: claims: Input should be a valid dict",
                "users.jsonl, line 10: the claim 'sub' has a meaning of its own",
                "users.jsonl, line 11: expected an Argon2id hash",
                "users.jsonl, line 12: username: Input should be a valid string",
                "users.jsonl, line 13: a member occurs twice in one object",
                "users.jsonl, line 14: 'bob' is in line 1 already",
            ],
        ),
        (
            "users.csv",
            "username,roles,claims\nbob,a b,\ncarol\ndave,,{\neve,,[1]\nfrank,é,\nBob,,\n",
            [
                "users.csv, line 3: expected a value for each of the columns username, roles, claims",
                "users.csv, line 4: claims: not valid JSON",
                "users.csv, line 5: claims: Input should be a valid dict",
                "users.csv, line 6: a role is 1 to 128 characters",
                "users.csv, line 7: 'bob' is in line 2 already",
            ],
        ),
        ("users.csv", "name\nbob\n", ["users.csv, line 2: username: Field required"]),
        ("users.csv", "username,username\nbob,eve\n", ["users.csv, line 2: expected a value for"]),
        (
            "users.csv",
            'username\nbob\n"eve',
            ["users.csv, line 3: not CSV: unexpected end of data"],
        ),
    ],
)
def test_when_something_is_wrong_nobody_is_added(
    run: Run, folder: Path, name: str, text: str | bytes, problems: list[str]
) -> None:
    result = run("users", "import", write(folder, name, text))
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == len(problems), result.stderr
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(problem)
        assert "hunter2" not in line
    assert not (folder / "audit.log").exists()
    assert stored_users(folder) == []


def test_names_that_are_taken_are_all_said_and_nobody_is_added(run: Run, folder: Path) -> None:
    for name in ("alice", "carol"):
        assert run("users", "add", name, "--generate").exit_code == 0
    before = stored_users(folder)
    text = "username\nbob\nALICE\ndave\ncarol\n"
    result = run("users", "import", write(folder, "users.csv", text))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "users.csv, line 3: there is a user 'alice' already",
        "users.csv, line 5: there is a user 'carol' already",
        "Nobody was added.",
    ]
    assert stored_users(folder) == before
    assert len((folder / "audit.log").read_text().splitlines()) == 2


def test_of_many_problems_the_first_are_told(run: Run, folder: Path) -> None:
    result = run("users", "import", write(folder, "users.csv", "username\n" + "a b\n" * 50))
    lines = result.stderr.splitlines()
    assert (result.exit_code, len(lines)) == (2, 21)
    assert lines[-1] == "users.csv: and 30 more problems"
    good = "username\n" + "".join(f"u{n}\n" for n in range(50))
    assert run("users", "import", write(folder, "users.csv", good)).exit_code == 0
    result = run("users", "import", "users.csv")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 22)
    assert result.stderr.splitlines()[-2] == "users.csv: and 30 more of these"


def test_a_file_has_an_end(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow_server.cli.user_files.MAX_BYTES", 30)
    monkeypatch.setattr("agentflow_server.cli.user_files.MAX_USERS", 2)
    result = run("users", "import", write(folder, "users.csv", "username\na\nb\nc\n"))
    assert result.stderr == "users.csv: expected 1 to 2 users, found 3\n"
    result = run("users", "import", write(folder, "users.csv", "username\n" + "a" * 30))
    assert result.stderr == "users.csv: expected at most 30 bytes\n"
    assert stored_users(folder) == []


def test_a_file_that_is_not_there_is_said(run: Run, folder: Path) -> None:
    assert run("users", "import", "nowhere.csv").exit_code == 2
    (folder / "folder.csv").mkdir()
    assert run("users", "import", "folder.csv").exit_code == 2


def test_a_file_that_cannot_be_read_is_said(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = Path.open

    def refuse(path: Path, *mode: Any, **options: Any) -> Any:
        if path.name == "users.csv":
            raise PermissionError(13, "Permission denied")
        return open_file(path, *mode, **options)

    name = write(folder, "users.csv", "username\nalice\n")
    with monkeypatch.context() as patch:
        patch.setattr("agentflow_server.cli.user_files.Path.open", refuse)
        result = run("users", "import", name)
    assert result.exit_code == 2
    assert result.stderr.endswith("users.csv: cannot be read: Permission denied\n")


def test_who_was_in_the_way_only_for_a_moment_is_not(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_users, tries = SqliteStore.add_users, []

    async def add_later(store: SqliteStore, users: Any) -> None:
        tries.append(len(users))
        if len(tries) == 1:
            raise IdTaken("A username is taken")
        await add_users(store, users)

    monkeypatch.setattr(SqliteStore, "add_users", add_later)
    result = run("users", "import", write(folder, "users.csv", "username\nbob\n\n\neve\n"))
    assert (result.exit_code, tries) == (0, [2, 2])
    assert [user.username for user in stored_users(folder)] == ["bob", "eve"]
