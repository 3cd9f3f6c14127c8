"""`agentflow token` mints what the server accepts, and nothing it should not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from typer.testing import Result

from agentflow_server.auth.opening import open_jwt
from agentflow_server.config import JwtConfig, load_config

Run = Callable[..., Result]
Project = Callable[..., Path]


@pytest.fixture
def mint(run: Run, project: Project, secret: str) -> Callable[..., dict[str, Any]]:
    """The claims of a token for alice, as the server's own verifier sees them."""

    def mint(*arguments: str, **auth: Any) -> dict[str, Any]:
        project(auth={"method": "jwt", **auth})
        os.environ["JWT_SECRET_KEY"] = secret
        result = run("token", "--user-id", "alice", *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        (method,) = load_config().auth
        assert isinstance(method, JwtConfig)
        return dict(open_jwt(method).verify(result.stdout.strip()).claims)

    return mint


def test_the_token_is_what_the_server_accepts(mint: Callable[..., dict[str, Any]]) -> None:
    claims = mint()
    assert claims["user_id"] == "alice"
    assert claims["exp"] - claims["iat"] == 3600


def test_claims_are_json_or_plain_text(mint: Callable[..., dict[str, Any]]) -> None:
    claims = mint(
        *("--claim", 'roles=["admin"]', "--claim", "name=Alice B", "--claim", "n=3"),
        *("--claim", "eq=a=b", "--claim", "odd=NaN", "--claim", "empty="),
    )
    wanted = {"roles": ["admin"], "name": "Alice B", "n": 3, "eq": "a=b", "odd": "NaN", "empty": ""}
    assert {name: claims[name] for name in wanted} == wanted


@pytest.mark.parametrize("user_id", ["", "  ", "x" * 257, "a\tb"])
def test_r22_nobody_is_not_given_a_token(
    run: Run, project: Project, secret: str, user_id: str
) -> None:
    project(auth="jwt")
    os.environ["JWT_SECRET_KEY"] = secret
    result = run("token", "--user-id", user_id)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("--user-id: the user id ")


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("15m", 900), ("7d", 604_800)])
def test_it_expires_when_told(mint: Callable[..., dict[str, Any]], text: str, seconds: int) -> None:
    claims = mint("--expires", text)
    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize("audience", ["you", ["you", "them"]])
def test_issuer_audience_and_user_claim_come_from_the_config(
    mint: Callable[..., dict[str, Any]], audience: str | list[str]
) -> None:
    claims = mint(issuer="me", audience=audience, claims={"user_id": "email"})
    assert (claims["iss"], claims["aud"], claims["email"]) == ("me", audience, "alice")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--expires", "1y"], "--expires: expected a time like 30s, 15m, 1h or 90d, found '1y'"),
        (["--expires", "-1h"], "--expires: expected a time like 30s, 15m, 1h or 90d, found '-1h'"),
        (["--kid", "x"], "--kid: no key has the id 'x'; found none has an id"),
        (["--claim", "roles"], "--claim: expected name=value, found 'roles'"),
        (["--claim", "=x"], "--claim: expected name=value, found '=x'"),
        (["--key", "agentflow.json"], "--key: HS256 signs with the configured secret alone"),
    ],
)
def test_wrong_arguments_are_one_line(
    run: Run, project: Project, secret: str, arguments: list[str], line: str
) -> None:
    project(auth="jwt")
    os.environ["JWT_SECRET_KEY"] = secret
    result = run("token", "--user-id", "alice", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", line + "\n")


def test_without_jwt_there_is_no_token(run: Run, project: Project) -> None:
    project(auth=None)
    result = run("token", "--user-id", "alice")
    assert result.exit_code == 2
    assert 'needs "auth": "jwt"' in result.stderr


def test_a_weak_secret_signs_only_where_it_is_allowed(run: Run, project: Project) -> None:
    os.environ["JWT_SECRET_KEY"] = "short-but-mine"
    project(auth="jwt")
    result = run("token", "--user-id", "alice")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "JWT_SECRET_KEY" in result.stderr
    assert "short-but-mine" not in result.stderr
    project(auth={"method": "jwt", "allow_weak_secret": True})
    result = run("token", "--user-id", "alice")
    assert (result.exit_code, result.stderr) == (0, "")


def test_only_the_private_half_signs(run: Run, project: Project) -> None:
    folder = project(auth="jwt")
    for name in ("a", "b"):
        run("keys", "--out", name)
    os.environ["JWT_ALGORITHM"] = "ES256"
    os.environ["JWT_SECRET_KEY"] = (folder / "a/jwt-public.pem").read_text(encoding="utf-8")

    def token(*arguments: str) -> Result:
        return run("token", "--user-id", "alice", *arguments)

    assert "JWT_SECRET_KEY holds a public key, which cannot sign" in token().stderr
    assert "a public key" in token("--key", "a/jwt-public.pem").stderr
    assert "not the private half" in token("--key", "b/jwt-private.pem").stderr
    (folder / "binary").write_bytes(b"\xff")
    assert "cannot be read as text" in token("--key", "binary").stderr
    assert token("--key", "a/jwt-private.pem").exit_code == 0


def test_a_configured_private_key_signs(run: Run, project: Project) -> None:
    folder = project(auth="jwt")
    run("keys", "--algorithm", "RS256")
    pem = (folder / "jwt-private.pem").read_text(encoding="utf-8")
    os.environ.update(JWT_ALGORITHM="RS256", JWT_SECRET_KEY=pem.replace("\n", "\\n"))
    result = run("token", "--user-id", "alice")
    assert (result.exit_code, result.stderr) == (0, "")
    public = (folder / "jwt-public.pem").read_text(encoding="utf-8")
    assert jwt.decode(result.stdout.strip(), public, algorithms=["RS256"])["user_id"] == "alice"


def test_required_claims_are_in_the_token(mint: Callable[..., dict[str, Any]]) -> None:
    required = {"tenant": ["acme", "other"], "email_verified": True, "session": None}
    claims = mint(claims={"required": required})
    assert {name: claims[name] for name in required} == {
        "tenant": "acme",
        "email_verified": True,
        "session": True,
    }


def test_a_token_lives_no_longer_than_the_configuration_allows(run: Run, project: Project) -> None:
    project(auth={"method": "jwt", "allow_weak_secret": True, "max_lifetime": 900})
    os.environ["JWT_SECRET_KEY"] = "short-but-mine"
    assert run("token", "--user-id", "alice", "--expires", "15m").exit_code == 0
    result = run("token", "--user-id", "alice", "--expires", "16m")
    assert result.stderr == "--expires: max_lifetime allows at most 900s\n"


def test_the_newest_key_signs_unless_another_is_named(
    run: Run, project: Project, secret: str
) -> None:
    keys = [
        {"kid": "new", "algorithm": "HS512", "secret_env": "KEY_NEW"},
        {"kid": "old", "algorithm": "HS256", "secret_env": "KEY_OLD"},
    ]
    project(auth=["api_key", {"method": "jwt", "keys": keys}])
    os.environ.update(KEY_NEW=secret + secret[::-1], KEY_OLD=secret)

    def header(*arguments: str) -> dict[str, Any]:
        result = run("token", "--user-id", "alice", *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        return jwt.get_unverified_header(result.stdout.strip())

    assert header() == {"alg": "HS512", "kid": "new", "typ": "JWT"}
    assert header("--kid", "old") == {"alg": "HS256", "kid": "old", "typ": "JWT"}
    result = run("token", "--user-id", "alice", "--kid", "other")
    assert result.stderr == "--kid: no key has the id 'other'; found new, old\n"


def test_keys_of_others_sign_nothing(run: Run, project: Project) -> None:
    project(auth={"method": "jwt", "issuer": "https://id.example.com"})
    result = run("token", "--user-id", "alice")
    assert result.exit_code == 2
    assert 'needs "auth": "jwt"' in result.stderr
