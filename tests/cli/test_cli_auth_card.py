"""`agentflow auth card` writes what an agent's code shows: a token and a URL, and no secret."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import jwt
import pytest
from typer.testing import Result

from agentflow_server import AuthCard
from agentflow_server.auth.opening import open_jwt
from agentflow_server.cli.database import open_database
from agentflow_server.config import JwtConfig, load_config
from agentflow_server.gate import LocalKeys

Run = Callable[..., Result]
Project = Callable[..., Path]


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


@pytest.fixture
def jwt_project(project: Project, secret: str) -> Path:
    os.environ["JWT_SECRET_KEY"] = secret
    return project(auth="jwt")


def test_the_card_holds_a_token_of_the_servers_and_its_url(run: Run, jwt_project: Path) -> None:
    result = run("auth", "card", "--user", "alice")
    assert (result.exit_code, result.stderr) == (0, "")
    path = jwt_project / "authen" / "secret.json"
    card = read(path)
    assert card.keys() == {"api_url", "token"}
    assert card["api_url"] == "http://127.0.0.1:8000/verify-token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert card["token"] not in result.output
    (method,) = load_config().auth
    assert isinstance(method, JwtConfig)
    principal = open_jwt(method).verify(card["token"])
    assert (principal.id, 3500 < principal.expires_at - time.time() <= 3600) == ("alice", True)
    assert AuthCard.from_config(path).api_url == card["api_url"]


def test_its_options_say_where_and_how_long(run: Run, jwt_project: Path) -> None:
    arguments = ("--save-path", "a/b/card.json", "--expires-in", "30m")
    result = run("auth", "card", "--user", "bob", *arguments, "--api-url", "https://example.com")
    assert result.exit_code == 0, result.output
    card = read(jwt_project / "a" / "b" / "card.json")
    assert card["api_url"] == "https://example.com/verify-token"
    claims = claims_of(card["token"])
    assert (claims["user_id"], claims["exp"] - claims["iat"]) == ("bob", 1800)


def test_a_card_is_renewed_in_its_place(run: Run, jwt_project: Path) -> None:
    for user in ("alice", "bob"):
        assert run("auth", "card", "--user", user).exit_code == 0
    card = read(jwt_project / "authen" / "secret.json")
    assert claims_of(card["token"])["user_id"] == "bob"


def test_a_file_that_is_no_card_is_left_alone(run: Run, jwt_project: Path) -> None:
    result = run("auth", "card", "--user", "alice", "--save-path", "agentflow.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is no card" in result.stderr
    assert "agent" in read(jwt_project / "agentflow.json")


def test_a_folder_that_cannot_be_made_is_told(run: Run, jwt_project: Path) -> None:
    result = run("auth", "card", "--user", "alice", "--save-path", "agentflow.json/card.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--user", " "), "--user: the user id is blank"),
        (("--user", "alice", "--expires-in", "soon"), "--expires-in: expected a time"),
        (("--user", "alice", "--api-url", "http://example.com"), "--api-url: must be https"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(
    run: Run, jwt_project: Path, arguments: tuple[str, ...], told: str
) -> None:
    result = run("auth", "card", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(told)
    assert not (jwt_project / "authen").exists()


def test_the_longest_lifetime_of_the_server_holds(run: Run, project: Project, secret: str) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    project(auth={"method": "jwt", "max_lifetime": 60})
    result = run("auth", "card", "--user", "alice", "--expires-in", "2m")
    assert result.exit_code == 2
    assert result.stderr.startswith("--expires-in: max_lifetime allows")


def test_the_public_url_is_where_the_card_is_verified(
    run: Run, project: Project, secret: str
) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    folder = project(auth="jwt", public_url="https://agents.example.com")
    assert run("auth", "card", "--user", "alice").exit_code == 0
    card = read(folder / "authen" / "secret.json")
    assert card["api_url"] == "https://agents.example.com/verify-token"


@pytest.mark.parametrize("address", [{"AGENTFLOW_HOST": "0.0.0.0"}, {"AGENTFLOW_PORT": "0"}])
def test_an_address_that_nobody_knows_has_to_be_given(
    run: Run, jwt_project: Path, address: dict[str, str]
) -> None:
    os.environ.update(address)
    result = run("auth", "card", "--user", "alice")
    assert result.exit_code == 2
    assert result.stderr.startswith("--api-url: is missing")


def test_an_ipv6_address_has_brackets(run: Run, jwt_project: Path) -> None:
    os.environ["AGENTFLOW_HOST"] = "::1"
    assert run("auth", "card", "--user", "alice").exit_code == 0
    assert read(jwt_project / "authen" / "secret.json")["api_url"].startswith("http://[::1]:8000/")


def test_without_a_key_that_signs_there_is_no_card(run: Run, project: Project) -> None:
    folder = project(auth=None)
    result = run("auth", "card", "--user", "alice")
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (folder / "authen").exists()


@pytest.fixture
def token_server(run: Run, project: Project) -> Path:
    """A project with a token server and the user alice."""
    os.environ.pop("JWT_SECRET_KEY", None)
    folder = project(
        token_server={}, observability={"audit": {"sink": "file", "path": "audit.jsonl"}}
    )
    added = run("users", "add", "alice", "--role", "editor", "--generate")
    assert added.exit_code == 0, added.output
    return folder


def test_the_token_server_signs_the_cards_of_its_users(run: Run, token_server: Path) -> None:
    result = run("auth", "card", "--user", "alice", "--save-path", "card.json")
    assert result.exit_code == 0, result.output
    token = read(token_server / "card.json")["token"]
    claims = claims_of(token)
    assert (claims["username"], claims["roles"], claims["aud"]) == (
        "alice",
        ["editor"],
        "http://127.0.0.1:8000",
    )
    assert claims["exp"] - int(claims["iat"]) == 900
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


def test_its_published_keys_verify_such_a_card(run: Run, token_server: Path) -> None:
    from agentflow_server.token_server.keys import Keys

    assert run("auth", "card", "--user", "alice", "--save-path", "card.json").exit_code == 0

    async def publish() -> None:
        async with open_database(load_config()) as database:
            keys = Keys(database.grants)
            await keys.open()
            (token_server / "jwks.json").write_text(json.dumps(await keys.jwks()))
            await keys.close()

    anyio.run(publish)
    url = "http://127.0.0.1:8000"
    keys = LocalKeys(jwks_file=token_server / "jwks.json", issuer=url, audience=url)
    AuthCard.from_config(token_server / "card.json", keys=keys).check()


def test_a_card_of_the_token_server_is_in_the_audit_log(run: Run, token_server: Path) -> None:
    assert run("auth", "card", "--user", "alice", "--save-path", "card.json").exit_code == 0
    claims = claims_of(read(token_server / "card.json")["token"])
    log = load_config().audit_path
    assert log is not None
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["action"] == "token.issue"
    assert last["details"] == {"user_id": claims["sub"], "token_id": claims["jti"]}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--user", "nobody"), 1, "There is no such user"),
        (("--user", "alice", "--expires-in", "2h"), 2, "--expires-in: a token of the token server"),
        (("--user", "alice", "--key", "agentflow.json"), 2, "--key: the token server signs"),
    ],
)
def test_the_token_server_gives_no_other_cards(
    run: Run, token_server: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    result = run("auth", "card", "--save-path", "card.json", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(told)
    assert not (token_server / "card.json").exists()


def test_a_disabled_user_gets_no_card(run: Run, token_server: Path) -> None:
    assert run("users", "disable", "alice").exit_code == 0
    result = run("auth", "card", "--user", "alice", "--save-path", "card.json")
    assert (result.exit_code, result.stderr.strip()) == (2, "--user: alice is disabled")
    assert not (token_server / "card.json").exists()
