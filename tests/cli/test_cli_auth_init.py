"""`agentflow auth init` makes what agentflow.json names and nobody has set, once, and shows none."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from typer.testing import Result

from agentflow_server.config import load_config

Run = Callable[..., Result]
Project = Callable[..., Path]

PASSWORD = re.compile(r"[a-z2-9]{5}(-[a-z2-9]{5}){4}\n")
AUDITED = {"audit": {"sink": "file", "path": "audit.log"}}
CLIENTS = {
    "nightly": {"secret": "${NIGHTLY_SECRET}"},
    "app": {"redirect_uris": ["https://app.example.com/callback"]},
}


def secrets_of(folder: Path) -> dict[str, str | None]:
    return dict(dotenv_values(folder / ".env"))


def test_it_makes_secrets_a_key_and_a_user_and_then_the_server_can_start(
    project: Project, run: Run, use_store: Any, database: str
) -> None:
    folder = project(
        env=".env",
        auth={"method": "jwt", "secret_key": "${SESSION_SECRET}"},
        token_server={"clients": CLIENTS},
        database=database,
        observability=AUDITED,
    )
    result = run("auth", "init", "--username", "alice")
    assert result.exit_code == 0, result.stderr
    assert PASSWORD.fullmatch(result.stdout)
    made = secrets_of(folder)
    assert list(made) == ["SESSION_SECRET", "NIGHTLY_SECRET"]
    assert len(set(made.values())) == 2
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    (key,) = use_store(lambda store: store.list_signing_keys())
    assert key.kid in result.stderr
    log = (folder / "audit.log").read_text(encoding="utf-8")
    assert [log.count(act) for act in ("signing_key.add", "user.add")] == [1, 1]
    for secret in (*made.values(), "PRIVATE KEY"):
        assert secret is not None
        assert secret not in result.output + log
    config = load_config()
    assert config.token_server is not None
    client = config.token_server.clients["nightly"]
    assert client.secret is not None
    assert client.secret.get_secret_value() == made["NIGHTLY_SECRET"]


def test_the_second_time_nothing_is_changed(
    project: Project, run: Run, use_store: Any, database: str
) -> None:
    folder = project(env=".env", auth="jwt", token_server={}, database=database)
    assert run("auth", "init").exit_code == 0
    text = (folder / ".env").read_bytes()
    keys = use_store(lambda store: store.list_signing_keys())
    del os.environ["JWT_SECRET_KEY"]  # as a new shell is without what the first one has published
    again = run("auth", "init")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "nothing was changed" in again.stderr
    assert "made" not in again.stderr
    assert (folder / ".env").read_bytes() == text
    assert use_store(lambda store: store.list_signing_keys()) == keys


def test_what_is_new_in_the_configuration_is_made_later(project: Project, run: Run) -> None:
    folder = project(env=".env", auth="jwt")
    assert run("auth", "init").exit_code == 0
    before = (folder / ".env").read_text(encoding="utf-8")
    project(env=".env", auth="jwt", token_server={"clients": CLIENTS})
    again = run("auth", "init")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "none was added" in again.stderr
    assert (folder / ".env").read_text(encoding="utf-8").startswith(before)
    assert list(secrets_of(folder)) == ["JWT_SECRET_KEY", "NIGHTLY_SECRET"]


def test_what_the_file_says_already_stays(project: Project, run: Run) -> None:
    folder = project(env=".env", auth="jwt", token_server={"clients": CLIENTS})
    own = "# ours\nJWT_SECRET_KEY=kJ8vQ2mX9rT4wZ7yB1nC6dF3gH5sL0pA\nOTHER='a b'"  # no line end
    (folder / ".env").write_text(own, encoding="utf-8")
    (folder / ".env").chmod(0o600)
    assert run("auth", "init").exit_code == 0
    assert (folder / ".env").read_text(encoding="utf-8").startswith(own + "\n")
    made = secrets_of(folder)
    assert list(made) == ["JWT_SECRET_KEY", "OTHER", "NIGHTLY_SECRET"]
    assert (made["JWT_SECRET_KEY"], made["OTHER"]) == ("kJ8vQ2mX9rT4wZ7yB1nC6dF3gH5sL0pA", "a b")


def test_a_byte_order_mark_hides_no_value(project: Project, run: Run, secret: str) -> None:
    folder = project(env=".env", auth="jwt")
    (folder / ".env").write_text(f"\ufeffJWT_SECRET_KEY={secret}\n", encoding="utf-8")
    (folder / ".env").chmod(0o600)
    before = (folder / ".env").read_bytes()
    assert run("auth", "init").exit_code == 0
    assert (folder / ".env").read_bytes() == before


def test_what_is_left_empty_in_the_file_is_filled(project: Project, run: Run) -> None:
    folder = project(env=".env", auth="jwt")
    (folder / ".env").write_text("JWT_SECRET_KEY=\n", encoding="utf-8")
    (folder / ".env").chmod(0o600)
    assert run("auth", "init").exit_code == 0
    assert secrets_of(folder)["JWT_SECRET_KEY"]


def test_what_the_environment_has_is_not_made(project: Project, run: Run, secret: str) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    folder = project(auth="jwt")
    assert run("auth", "init").exit_code == 0
    assert not (folder / ".env").exists()


@pytest.mark.parametrize(
    ("auth", "names"),
    [
        ("jwt", ["JWT_SECRET_KEY"]),
        ({"method": "jwt", "issuer": "agents"}, ["JWT_SECRET_KEY"]),
        ({"method": "jwt", "algorithm": "HS512"}, ["JWT_SECRET_KEY"]),
        (["api_key", "jwt"], ["JWT_SECRET_KEY"]),
        (
            [{"method": "jwt", "issuer": "a", "secret_key": "${OTHER_SECRET}"}, "jwt"],
            ["OTHER_SECRET", "JWT_SECRET_KEY"],
        ),
        (
            {
                "method": "jwt",
                "keys": [
                    {"kid": "new", "secret_env": "NEW_SECRET", "algorithm": "HS256"},
                    {"kid": "old", "secret_env": "OLD_SECRET", "algorithm": "HS384"},
                ],
            },
            ["NEW_SECRET", "OLD_SECRET"],
        ),
    ],
)
def test_whatever_form_names_a_secret(
    project: Project, run: Run, auth: Any, names: list[str]
) -> None:
    folder = project(env=".env", auth=auth)
    result = run("auth", "init")
    assert result.exit_code == 0, result.stderr
    assert list(secrets_of(folder)) == names
    assert load_config().auth


@pytest.mark.parametrize(
    "auth",
    [
        {"method": "jwt", "algorithm": "RS256"},
        {"method": "jwt", "algorithm": "ES256", "secret_key": "${PUBLIC_KEY}"},
        {"method": "jwt", "keys": [{"secret_env": "PUBLIC_KEY", "algorithm": "ES256"}]},
        {"method": "jwt", "keys": [{"secret_env": "A=1\nB", "algorithm": "HS256"}]},
        {"method": "jwt", "jwks_file": "keys.json"},
        {"method": "jwt", "secret_key": "not a variable"},
        {"method": "jwt", "secret_key": "${SOME_SECRET:-default}"},
        {
            "method": "introspection",
            "url": "https://id.example.com/introspect",
            "client_id": "agents",
            "client_secret": "${CLIENT_SECRET}",
        },
        [{"method": "jwt", "issuer": "a"}, {"method": "jwt", "issuer": "b"}],
    ],
)
def test_what_others_have_to_give_is_not_made_up(project: Project, run: Run, auth: Any) -> None:
    folder = project(env=".env", auth=auth)
    (folder / ".env").touch(0o600)
    result = run("auth", "init")
    assert (result.exit_code, result.stdout) == (2, "")
    assert (folder / ".env").read_text(encoding="utf-8") == ""


def test_an_issuer_whose_keys_are_fetched_needs_no_secret(project: Project, run: Run) -> None:
    folder = project(env=".env", auth={"method": "jwt", "issuer": "https://id.example.com/"})
    (folder / ".env").touch(0o600)
    assert run("auth", "init").exit_code == 0
    assert (folder / ".env").read_text(encoding="utf-8") == ""


def test_a_value_that_refers_to_one_that_is_missing_is_not_replaced(
    project: Project, run: Run
) -> None:
    folder = project(env=".env", auth="jwt")
    (folder / ".env").write_text("JWT_SECRET_KEY=${FROM_THE_VAULT}\n", encoding="utf-8")
    (folder / ".env").chmod(0o600)
    result = run("auth", "init")
    assert result.exit_code == 2
    assert "JWT_SECRET_KEY is empty" in result.stderr
    assert (folder / ".env").read_text(encoding="utf-8") == "JWT_SECRET_KEY=${FROM_THE_VAULT}\n"


def test_two_keys_at_once_are_told_of_and_no_third_is_made(
    project: Project, run: Run, secret: str
) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    folder = project(env=".env", auth={"method": "jwt", "secret_key": "${SESSION_SECRET}"})
    (folder / ".env").touch(0o600)
    result = run("auth", "init")
    assert result.exit_code == 2
    assert "SESSION_SECRET is not set" in result.stderr
    assert (folder / ".env").read_text(encoding="utf-8") == ""


def test_without_an_env_file_it_says_where_the_secrets_would_go(project: Project, run: Run) -> None:
    folder = project(auth="jwt")
    result = run("auth", "init")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith('agentflow.json: env: is missing; write "env": ".env"')
    assert "JWT_SECRET_KEY" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["agentflow.json", "project_agent.py"]


def refused(run: Run) -> str:
    result = run("auth", "init")
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_no_secret_is_written_where_others_can_read_it(project: Project, run: Run) -> None:
    folder = project(env=".env", auth="jwt")
    (folder / ".env").write_text("A=1\n", encoding="utf-8")
    (folder / ".env").chmod(0o640)
    assert "others can read it; chmod 600 it first" in refused(run)
    assert (folder / ".env").read_text(encoding="utf-8") == "A=1\n"


def test_no_secret_is_written_through_a_symbolic_link(project: Project, run: Run) -> None:
    folder = project(env=".env", auth="jwt")
    (folder / "elsewhere").touch(0o600)
    (folder / ".env").symlink_to("elsewhere")
    assert "it is a symbolic link" in refused(run)
    assert (folder / "elsewhere").read_bytes() == b""


def test_no_secret_is_written_into_what_is_no_file(project: Project, run: Run) -> None:
    folder = project(env="/dev/null", auth="jwt")
    assert "it is no regular file" in refused(run)
    assert not (folder / ".agentflow").exists()


def test_a_folder_that_is_missing_is_told(project: Project, run: Run) -> None:
    project(env="secrets/.env", auth="jwt")
    assert "cannot be written: No such file or directory" in refused(run)


@pytest.mark.parametrize("content", [b"not a line\n", b"A=\xff\n", b"A=\0\n"])
def test_a_broken_env_file_is_left_as_it_is(project: Project, run: Run, content: bytes) -> None:
    folder = project(env=".env", auth="jwt")
    (folder / ".env").write_bytes(content)
    (folder / ".env").chmod(0o600)
    assert "agentflow.json: env: " in refused(run)
    assert (folder / ".env").read_bytes() == content


def test_a_configuration_that_is_no_json_changes_nothing(project: Project, run: Run) -> None:
    folder = project()
    (folder / "agentflow.json").write_text("{", encoding="utf-8")
    assert "agentflow.json: line 1" in refused(run)


def test_of_two_at_the_same_time_one_adds_the_user(project: Project, start: Any, run: Run) -> None:
    project(token_server={})
    assert run("users", "list").exit_code == 0  # the database is made by one process alone
    both = [start("auth", "init"), start("auth", "init")]
    assert [running.wait() for running in both] == [0, 0], [running.stderr for running in both]
    printed = [line for running in both for line in running.stdout]
    assert len(printed) == 1
    assert PASSWORD.fullmatch(printed[0] + "\n")
    assert run("users", "list", "--json").stdout.count('"user_id"') == 1
