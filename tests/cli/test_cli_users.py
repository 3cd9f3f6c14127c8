"""`agentflow users` and `agentflow auth init`: what they print, store, refuse and write down."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner, Result

import agentflow_server
from agentflow_server.auth.revocation import Revocations
from agentflow_server.cli import app
from agentflow_server.errors import NotAuthenticated
from agentflow_server.models import Principal, RefreshToken, Revocation, User, UserSecrets
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.users.login import find_verified_user
from agentflow_server.users.passwords import Passwords

Run = Callable[..., Result]
T = TypeVar("T")

PASSWORD = re.compile(r"[a-z2-9]{5}(-[a-z2-9]{5}){4}")
GOOD = "tea kettle sings at noon"
ROLES = {"roles": {"admin": ["admin"], "editor": ["threads:read"]}}


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    audit = {"audit": {"sink": "file", "path": "audit.log"}}
    return project(auth="api_key", authorization=ROLES, observability=audit)


def use(folder: Path, action: Callable[[SqliteStore], Awaitable[T]]) -> T:
    async def use() -> T:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            return await action(store)

    return asyncio.run(use())


def stored_users(folder: Path) -> list[User]:
    async def read(store: SqliteStore) -> list[User]:
        return (await store.list_users(limit=99)).data

    return use(folder, read)


def revocations(folder: Path) -> list[Revocation]:
    return list(use(folder, lambda store: store.list_revocations(0.0)))


def can_log_in(folder: Path, username: str, password: str) -> bool:
    async def log_in(store: SqliteStore) -> bool:
        return await find_verified_user(store, Passwords(), username, password) is not None

    return use(folder, log_in)


def add(run: Run, username: str = "alice", *arguments: str) -> str:
    result = run("users", "add", username, "--generate", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def type_in(text: str | bytes, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, input=text)


def acts(folder: Path) -> list[tuple[str, Any]]:
    lines = (folder / "audit.log").read_text().splitlines()
    return [(line["action"], line.get("details", {})) for line in map(json.loads, lines)]


# Adding


def test_r63_a_generated_password_is_printed_once_and_only_its_hash_is_kept(
    run: Run, folder: Path
) -> None:
    options = ("--role", "editor", "--scope", "threads:read", "--claim", "department=sales")
    result = run("users", "add", "Alice", "--generate", *options, "--claim", "level=3")
    assert result.exit_code == 0
    password = result.stdout.rstrip("\n")
    assert PASSWORD.fullmatch(password)
    (user,) = stored_users(folder)
    for fact in (user.user_id, "alice", "editor", "threads:read", "shown only now"):
        assert fact in result.stderr
    assert password not in result.stderr
    assert (user.username, user.roles, user.scopes) == ("alice", ["editor"], ["threads:read"])
    assert user.claims == {"department": "sales", "level": 3}
    assert can_log_in(folder, "ALICE", password)
    found = use(folder, lambda store: store.find_user_by_name("alice"))
    assert found is not None
    stored = found[1].password_hash
    assert stored is not None
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    shown = [run("users", *command.split()).stdout for command in
             ("list", "list --json", "show alice", "show alice --json")]  # fmt: skip
    assert all("alice" in text and "argon2id" not in text for text in shown)
    for file in (*(folder / ".agentflow").iterdir(), folder / "audit.log"):
        assert password.encode() not in file.read_bytes()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_r63_a_password_from_stdin_is_taken_as_it_is(run: Run, folder: Path, end: str) -> None:
    result = type_in(f" {GOOD} é{end}", "users", "add", "alice", "--password-stdin")
    assert (result.exit_code, result.stdout) == (0, "")
    assert GOOD not in result.stderr
    assert can_log_in(folder, "alice", f" {GOOD} é")
    assert not can_log_in(folder, "alice", f"{GOOD} é")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "The password is empty"),
        ("\n", "The password is empty"),
        ("short", "The password has fewer than 15 characters"),
        ("alice-alice-alice", "The password is made of the username"),
        ("passwordpassword", "The password is one of those that are guessed first"),
        ("x" * 1025, "The password has more than 1024 bytes"),
        ("x" * 2_000_000, "The password has more than 1024 bytes"),
        (f"{GOOD}\x00", "The password contains NUL"),
        (f"{GOOD}\n{GOOD}\n", "--password-stdin: expected one line"),
        (f"{GOOD}\n\n", "--password-stdin: expected one line"),
        (GOOD.encode() + b"\xff", "--password-stdin: expected text in UTF-8"),
    ],
)
def test_r63_a_bad_password_adds_nobody(folder: Path, text: str | bytes, line: str) -> None:
    result = type_in(text, "users", "add", "alice", "--password-stdin")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", line + "\n")
    assert not (folder / "audit.log").exists()
    assert stored_users(folder) == []


def test_a_password_is_no_argument(run: Run, folder: Path) -> None:
    assert run("users", "add", "alice", GOOD).exit_code == 2
    assert run("users", "add", "alice", "--password", GOOD).exit_code == 2
    assert stored_users(folder) == []


def test_without_a_terminal_nobody_is_asked(run: Run, folder: Path) -> None:
    result = run("users", "add", "alice")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "stdin is no terminal: --password-stdin reads it, --generate makes one" in result.stderr
    assert stored_users(folder) == []


def talk(folder: Path, *answers: str) -> tuple[int, str]:
    """`agentflow users add alice` at a terminal: its exit code, and what the terminal showed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(agentflow_server.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "agentflow_server", "users", "add", "alice"],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    for prompt, answer in zip((b"Password:", b"Repeat it:"), answers, strict=True):
        while prompt not in shown:
            shown += os.read(ours, 1024)
        # Whoever is asked has turned the echo off before the question is shown.
        os.write(ours, f"{answer}\n".encode())
    try:
        while more := os.read(ours, 1024):
            shown += more
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    return process.wait(30), shown.decode()


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(folder: Path) -> None:
    code, shown = talk(folder, GOOD, GOOD)
    assert code == 0, shown
    assert GOOD not in shown
    assert can_log_in(folder, "alice", GOOD)


def test_two_passwords_that_differ_add_nobody(folder: Path) -> None:
    code, shown = talk(folder, GOOD, GOOD + "!")
    assert code == 2
    assert "The two passwords differ" in shown
    assert GOOD not in shown
    assert stored_users(folder) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["al ice"], "users add: a username is made of a-z, 0-9 and"),
        (["аlice"], "users add: a username is made of a-z, 0-9 and"),
        (["alice", "--role", "edtior"], "--role: there is no 'edtior' – did you mean 'editor'?"),
        (["alice", "--role", "a b"], "users add: a role is 1 to 128 characters"),
        (["alice", "--scope", "threads:raed"], "--scope: there is no 'threads:raed' – did you"),
        (["alice", "--scope", ""], "users add: a scope is 1 to 128 characters"),
        (["alice", "--claim", "sub=bob"], "users add: the claim 'sub' has a meaning of its own"),
        (["alice", "--claim", "department"], "--claim: expected name=value, found 'department'"),
        (["alice", "--password-stdin"], "--generate and --password-stdin exclude each other"),
        (["alice", "--database", "x.db"], "--database: expected"),
    ],
)
def test_wrong_arguments_add_nobody(
    run: Run, folder: Path, arguments: list[str], line: str
) -> None:
    result = run("users", "add", "--generate", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(line)
    assert stored_users(folder) == []


def test_a_name_is_taken_however_it_is_written(run: Run, folder: Path) -> None:
    add(run, "alice")
    result = run("users", "add", "ＡＬＩＣＥ", "--generate")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "There is a user 'alice' already.\n"
    assert len(stored_users(folder)) == 1
    assert [act for act, _ in acts(folder)] == ["user.add"]


def test_a_role_that_gives_nothing_is_noted(run: Run, folder: Path) -> None:
    result = run("users", "add", "alice", "--generate", "--role", "auditors")
    assert 'Note: "authorization.roles" gives nothing to auditors.' in result.stderr
    result = run("users", "add", "bob", "--generate", "--role", "editor")
    assert "Note" not in result.stderr


def test_without_roles_in_the_configuration_any_role_will_do(
    run: Run, project: Callable[..., Path]
) -> None:
    project(auth="api_key")
    result = run("users", "add", "alice", "--generate", "--role", "edtior")
    assert result.exit_code == 0
    assert "Note" not in result.stderr


def test_without_the_extra_it_says_what_to_install(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pwdlib", None)
    for command in (("users", "add", "alice", "--generate"), ("auth", "init")):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "users: pip install 'agentflow-server[passwords]'\n"
    assert run("users", "list").exit_code == 0


# Looking


def test_users_are_listed_with_their_state(run: Run, folder: Path) -> None:
    add(run, "bob", "--role", "editor")
    add(run, "alice")
    run("users", "disable", "alice")
    lines = run("users", "list").stdout.splitlines()
    assert lines[0].split()[:3] == ["USERNAME", "USER", "ID"]
    assert [line.split()[0] for line in lines[1:]] == ["alice", "bob"]
    assert [line.split()[2] for line in lines[1:]] == ["disabled", "enabled"]
    listed = json.loads(run("users", "list", "--json").stdout)
    assert [User(**user) for user in listed] == stored_users(folder)


def test_all_pages_are_listed(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow_server.cli.user_lists._PAGE", 2)
    for name in "abcde":
        add(run, name)
    assert [user["username"] for user in json.loads(run("users", "list", "--json").stdout)] == [
        *"abcde"
    ]


def test_without_users_there_is_nothing_to_list(run: Run, folder: Path) -> None:
    result = run("users", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "There are no users.\n")
    assert run("users", "list", "--json").stdout == "[]\n"


def test_one_user_is_shown_by_name_or_by_id(run: Run, folder: Path) -> None:
    add(run, "alice", "--claim", 'tags=["a", "b"]', "--role", "admin", "--role", "editor")
    (user,) = stored_users(folder)
    by_name, by_id = run("users", "show", "Alice"), run("users", "show", user.user_id)
    assert by_name.stdout == by_id.stdout
    facts = dict(line.split(maxsplit=1) for line in by_name.stdout.splitlines())
    assert facts["state"] == "enabled"
    assert facts["roles"] == "admin editor"
    assert facts["claims"] == '{"tags": ["a", "b"]}'
    assert facts["has_totp"] == "false"
    assert "disabled_at" not in facts
    assert User(**json.loads(run("users", "show", "alice", "--json").stdout)) == user


@pytest.mark.parametrize("name", ["nobody", "no body", "01a20297-cc6d-73f4-bbba-8e187d6ad659", ""])
@pytest.mark.parametrize(
    "command",
    [
        ["show"],
        ["disable"],
        ["enable"],
        ["remove"],
        ["set-password", "--generate"],
        ["update", "--role", "editor"],
    ],
    ids=lambda command: command[0],
)
def test_who_is_not_there_is_said(
    run: Run, folder: Path, command: Sequence[str], name: str
) -> None:
    add(run, "alice")
    before = stored_users(folder)
    result = run("users", *command, name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'There is no such user; "agentflow users list" shows them.\n'
    assert stored_users(folder) == before
    assert revocations(folder) == []
    assert [act for act, _ in acts(folder)] == ["user.add"]


# Changing


def test_roles_scopes_and_claims_are_replaced_where_they_are_named(run: Run, folder: Path) -> None:
    add(run, "alice", "--role", "admin", "--scope", "threads:read", "--claim", "a=1")
    result = run("users", "update", "alice", "--role", "editor")
    assert (result.exit_code, result.stdout) == (0, "")
    (user,) = stored_users(folder)
    assert f"agentflow revoke --user-id {user.user_id}" in result.stderr
    assert (user.roles, user.scopes, user.claims) == (["editor"], ["threads:read"], {"a": 1})
    assert run("users", "update", "alice", "--scope", "", "--claim", "").exit_code == 0
    (user,) = stored_users(folder)
    assert (user.roles, user.scopes, user.claims) == (["editor"], [], {})
    details = {"user_id": user.user_id, "username": "alice"}
    assert acts(folder)[1:] == [
        ("user.update", {**details, "roles": "editor"}),
        ("user.update", {**details, "scopes": "", "claims": ""}),
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "users update: expected --role, --scope or --claim"),
        (["--role", "edtior"], "--role: there is no 'edtior' – did you mean 'editor'?"),
        (["--scope", "thread:read"], "--scope: there is no 'thread:read' – did you mean"),
        (["--claim", "exp=1"], "users update: the claim 'exp' has a meaning of its own"),
    ],
)
def test_a_wrong_change_changes_nothing(
    run: Run, folder: Path, arguments: list[str], line: str
) -> None:
    add(run)
    before = stored_users(folder)
    result = run("users", "update", "alice", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(line)
    assert stored_users(folder) == before


def is_refused(folder: Path, issued_at: float, user_id: str) -> bool:
    """A token of his, at a server that asks for the revocations now."""
    principal = Principal(user_id, method="jwt", token_id="t1", issued_at=issued_at)

    async def check(store: SqliteStore) -> bool:
        revoked = Revocations(store)
        await revoked.open()
        try:
            await revoked.check(principal)
        except NotAuthenticated:
            return True
        finally:
            await revoked.close()
        return False

    return use(folder, check)


def give_key(run: Run, user: User) -> None:
    assert run("api-keys", "create", "--user-id", user.user_id).exit_code == 0


@pytest.mark.parametrize(
    ("command", "act", "told"),
    [
        ("disable", "user.disable", "Disabled."),
        ("remove", "user.remove", "Removed. His threads stay; a new user of that name has another"),
        ("set-password --generate", "user.set_password", "alice has a new password."),
    ],
)
def test_r68_what_was_issued_before_is_refused(
    run: Run, folder: Path, command: str, act: str, told: str
) -> None:
    add(run, "alice")
    add(run, "bob")
    alice, bob = stored_users(folder)
    give_key(run, alice)
    give_key(run, bob)
    issued_at = time.time()
    assert not is_refused(folder, issued_at, alice.user_id)
    result = run("users", *command.split(), "alice")
    assert result.exit_code == 0
    assert told in result.stderr
    assert "refused within 60 seconds" in result.stderr
    assert "API keys revoked for ever: 1" in result.stderr
    assert is_refused(folder, issued_at, alice.user_id)
    assert not is_refused(folder, issued_at, bob.user_id)
    assert not is_refused(folder, time.time() + 1, alice.user_id), "what comes after is good"
    keys = use(folder, lambda store: store.list_api_keys())
    assert [bool(key.revoked_at) for key in keys] == [True, False]
    assert [name for name, _ in acts(folder)][-3:] == [act, "revoke", "api_key.revoke"]
    assert {details["user_id"] for _, details in acts(folder)[-3:]} == {alice.user_id}


def test_a_disabled_user_cannot_log_in_until_he_is_enabled(run: Run, folder: Path) -> None:
    password = add(run)
    issued_at = time.time()
    for _ in range(2):
        assert run("users", "disable", "Alice").exit_code == 0
    assert not can_log_in(folder, "alice", password)
    result = run("users", "enable", "alice")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "that were refused stay so" in result.stderr
    assert can_log_in(folder, "alice", password)
    (user,) = stored_users(folder)
    assert is_refused(folder, issued_at, user.user_id)
    assert acts(folder)[-1] == ("user.enable", {"user_id": user.user_id, "username": "alice"})


def test_r63_a_new_password_takes_the_place_of_the_old_one(run: Run, folder: Path) -> None:
    first = add(run)
    result = run("users", "set-password", "alice", "--generate")
    second = result.stdout.rstrip("\n")
    assert PASSWORD.fullmatch(second)
    assert second not in result.stderr
    assert not can_log_in(folder, "alice", first)
    assert can_log_in(folder, "alice", second)
    assert type_in(GOOD, "users", "set-password", "alice", "--password-stdin").exit_code == 0
    assert can_log_in(folder, "alice", GOOD)
    refused = type_in("alicealicealice", "users", "set-password", "alice", "--password-stdin")
    assert (refused.exit_code, refused.stderr) == (2, "The password is made of the username\n")
    assert can_log_in(folder, "alice", GOOD)


@pytest.mark.parametrize("act", ["disable", "set-password --generate"])
def test_r68_the_logins_of_a_user_end_with_his_password(run: Run, folder: Path, act: str) -> None:
    add(run)
    (user,) = stored_users(folder)
    now = datetime.now(UTC)
    login = RefreshToken(b"hash", "f1", "app", user.user_id, (), now, now, now + timedelta(1))
    assert use(folder, lambda store: store.add_refresh_token(login))
    command, *options = act.split()
    result = run("users", command, "alice", *options)
    assert "Logins ended: 1" in result.stderr
    assert use(folder, lambda store: store.find_refresh_token(b"hash")) is None
    assert "Logins ended" not in run("users", command, "alice", *options).stderr


def test_r63_a_token_server_may_ask_for_shorter_passwords(run: Run, folder: Path) -> None:
    short = "sea breeze"
    refused = type_in(short, "users", "add", "alice", "--password-stdin")
    assert "fewer than 15 characters" in refused.stderr
    file = folder / "agentflow.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings = {**settings, "token_server": {"password_min_length": 10}}
    settings.pop("auth", None)
    file.write_text(json.dumps(settings), encoding="utf-8")
    assert type_in(short, "users", "add", "alice", "--password-stdin").exit_code == 0
    refused = type_in("sea breez", "users", "set-password", "alice", "--password-stdin")
    assert "fewer than 10 characters" in refused.stderr


def test_a_removed_users_threads_stay_and_are_nobody_elses(run: Run, folder: Path) -> None:
    add(run)
    (before,) = stored_users(folder)
    use(folder, lambda store: store.create_thread(before.user_id, "t1", metadata={}))
    assert run("users", "remove", "alice").exit_code == 0
    assert stored_users(folder) == []
    add(run)
    (after,) = stored_users(folder)
    assert after.user_id != before.user_id
    thread = use(folder, lambda store: store.get_thread(before.user_id, "t1"))
    assert thread.thread_id == "t1"
    assert use(folder, lambda s: s.list_threads(after.user_id, limit=9)).data == []


def test_nothing_is_done_that_cannot_be_written_down(run: Run, folder: Path) -> None:
    add(run)
    before = stored_users(folder)
    (folder / "audit.log").unlink()
    (folder / "audit.log").mkdir()
    for command in (
        "users add bob --generate",
        "users disable alice",
        "users enable alice",
        "users set-password alice --generate",
        "users update alice --role editor",
        "users remove alice",
        "auth init",
    ):
        result = run(*command.split())
        assert (result.exit_code, result.stdout) == (2, "")
        assert "observability.audit.path" in result.stderr
    assert stored_users(folder) == before
    assert revocations(folder) == []


def test_the_commands_work_with_either_database(
    project: Callable[..., Path], run: Run, database: str, use_store: Any
) -> None:
    project(auth="api_key", database=database)
    password = add(run)
    assert run("users", "disable", "alice").exit_code == 0
    assert run("users", "enable", "alice").exit_code == 0
    found = use_store(lambda store: find_verified_user(store, Passwords(), "Alice", password))
    assert found is not None
    assert run("users", "remove", "alice").exit_code == 0
    assert use_store(lambda store: store.find_user_by_name("alice")) is None


# The first user


def test_the_first_user_is_added_once(run: Run, folder: Path) -> None:
    result = run("auth", "init", "--role", "admin")
    assert result.exit_code == 0
    password = result.stdout.rstrip("\n")
    assert PASSWORD.fullmatch(password)
    assert password not in result.stderr
    assert "shown only now" in result.stderr
    assert 'Next: "agentflow users list"' in result.stderr
    assert can_log_in(folder, "admin", password)
    before = stored_users(folder)
    assert [(user.username, user.roles) for user in before] == [("admin", ["admin"])]
    for _ in range(2):
        again = run("auth", "init", "--username", "root")
        assert (again.exit_code, again.stdout) == (0, "")
        assert "There are users already: nothing was changed." in again.stderr
    assert stored_users(folder) == before
    assert can_log_in(folder, "admin", password)
    assert [name for name, _ in acts(folder)] == ["user.add"]


def test_where_there_are_users_no_first_one_is_added(run: Run, folder: Path) -> None:
    add(run, "bob")
    assert run("auth", "init").stdout == ""
    assert [user.username for user in stored_users(folder)] == ["bob"]


def test_a_first_user_has_a_name_that_is_one(run: Run, folder: Path) -> None:
    result = run("auth", "init", "--username", "the boss")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a username is made of" in result.stderr
    assert stored_users(folder) == []


def test_a_user_without_a_password_is_told_of_when_he_is_enabled(run: Run, folder: Path) -> None:
    add(run)

    async def forget(store: SqliteStore) -> None:
        (user,) = (await store.list_users(limit=1)).data
        await store.remove_user(user.user_id)
        bare = user.model_copy(update={"password_changed_at": None})
        await store.add_users([(bare, UserSecrets())])

    use(folder, forget)
    assert '"agentflow users set-password alice"' in run("users", "enable", "alice").stderr
    assert "no password" in run("users", "list").stdout
