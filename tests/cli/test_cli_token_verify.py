"""`agentflow token verify` says whether the server accepts a token, and if not, why."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agentflow_server.cli import app

Run = Callable[..., Result]
Project = Callable[..., Path]


@pytest.fixture
def token(run: Run, project: Project, secret: str) -> Callable[..., str]:
    """A token that this project makes for alice."""

    def token(*arguments: str, **auth: Any) -> str:
        project(auth={"method": "jwt", **auth})
        os.environ["JWT_SECRET_KEY"] = secret
        return run("token", "--user-id", "alice", *arguments).stdout.strip()

    return token


def test_a_good_token_is_accepted(run: Run, token: Callable[..., str]) -> None:
    text = token("--claim", 'roles=["admin"]')
    result = run("token", "verify", text)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "method: auth (jwt)"
    assert "accepted" in lines
    assert "roles: 'admin'" in lines
    assert text not in result.output


def test_a_token_is_read_from_stdin(token: Callable[..., str]) -> None:
    text = token()
    for sent in (text, text + "\n", f"Bearer {text}\n"):
        assert CliRunner().invoke(app, ["token", "verify", "-"], input=sent).exit_code == 0
    result = CliRunner().invoke(app, ["token", "verify", "-"], input="x" * 100_000)
    assert result.exit_code == 1
    assert "too_long" in result.stdout


def test_a_refusal_says_which_rule_and_which_setting(run: Run, token: Callable[..., str]) -> None:
    result = run("token", "verify", token("--claim", "aud=other", audience="api"))
    assert result.exit_code == 1
    assert "refused: audience_mismatch (R23)" in result.stdout
    assert "its aud is 'other'; the setting `audience` (JWT_AUDIENCE) is 'api'" in result.stdout


def test_of_several_methods_the_one_that_recognises_the_token_explains(
    run: Run, project: Project, secret: str
) -> None:
    project(
        auth=[
            {"method": "jwt", "issuer": "https://id.example", "jwks_file": "keys.json"},
            {"method": "jwt", "issuer": "us", "secret_key": "${JWT_SECRET_KEY}"},
            "api_key",
        ]
    )
    Path("keys.json").write_text(
        '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "k",'
        ' "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",'
        ' "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}',
        encoding="utf-8",
    )
    os.environ["JWT_SECRET_KEY"] = secret
    made = run("token", "--user-id", "alice")
    assert made.exit_code == 0, made.output
    result = run("token", "verify", made.stdout.strip())
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("method: auth[1] (jwt)\n")
    other = run("token", "--user-id", "alice", "--claim", "iss=them").stdout.strip()
    result = run("token", "verify", other)
    assert result.exit_code == 1
    assert "its iss is 'them', and no method has that issuer" in result.stdout
    assert "'https://id.example' (auth[0]), 'us' (auth[1])" in result.stdout
    for text, why in (("opaque", "looks neither like a JWT"), ("e30.bm8.e30", "cannot be read")):
        result = run("token", "verify", text)
        assert result.exit_code == 1
        assert why in result.stdout


def test_a_token_for_nobody_is_not_made(run: Run, project: Project) -> None:
    project(auth="jwt")
    result = run("token")
    assert result.exit_code == 2
    assert "missing option '--user-id'" in result.output
