"""`agentflow revoke` says when it could not match anybody, instead of reporting success."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from agentflow_server.auth import AnyOf, IntrospectionAuth, JwtAuth, open_authenticator
from agentflow_server.config import find_namespaces, load_config
from agentflow_server.models import Revocation
from agentflow_server.stores.sqlite import SqliteStore

Run = Callable[..., Result]
Project = Callable[..., Path]

A: dict[str, Any] = {"method": "jwt", "issuer": "https://a.example"}
B: dict[str, Any] = {"method": "jwt", "issuer": "https://b.example/"}
OPAQUE: dict[str, Any] = {
    "method": "introspection",
    "url": "https://a.example/introspect",
    "client_id": "agents",
    "client_secret": "${INTROSPECTION_SECRET}",
}
PRIMARY = {"primary": True}


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("INTROSPECTION_SECRET", secret)
    monkeypatch.setenv("JWT_SECRET_KEY", secret)


def revocations(folder: Path) -> Sequence[Revocation]:
    async def list_revocations() -> Sequence[Revocation]:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            return await store.list_revocations(0.0)

    return asyncio.run(list_revocations())


def test_a_user_whom_nobody_can_be_is_refused_with_the_ids_that_can(
    run: Run, project: Project
) -> None:
    folder = project(auth=[A, B])
    for user_id in ("alice", "https://a.example|"):
        result = run("revoke", "--user-id", user_id)
        assert (result.exit_code, result.stdout) == (2, "")
        forms = f"'https://a.example|{user_id}', 'https://b.example/|{user_id}'"
        assert f"one of {forms}" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    result = run("revoke", "--user-id", "https://b.example|alice")
    assert result.exit_code == 2, "the slash at its end is missing"
    assert revocations(folder) == []

    assert run("revoke", "--user-id", "https://a.example|alice").exit_code == 0
    assert [entry.user_id for entry in revocations(folder)] == ["https://a.example|alice"]


@pytest.mark.parametrize("auth", [[A, B, "api_key"], [{**A, **PRIMARY}, B], [A, B, "jwt"]])
def test_an_id_that_stands_alone_is_revoked_and_its_namesakes_are_told(
    run: Run, project: Project, auth: Any
) -> None:
    project(auth=auth)
    result = run("revoke", "--user-id", "alice")
    assert result.exit_code == 0, result.stderr
    assert "Not revoked, because another user each: " in result.stderr
    assert "'https://b.example/|alice'" in result.stderr
    result = run("revoke", "--user-id", "https://b.example/|alice")
    assert result.exit_code == 0
    assert "Not revoked" not in result.stderr


@pytest.mark.parametrize(
    "auth",
    ["jwt", A, [A, "api_key"], "api_key", [A, {**OPAQUE, "issuer": "https://a.example"}]],
)
def test_with_one_issuer_every_id_stands_alone(run: Run, project: Project, auth: Any) -> None:
    project(auth=auth)
    result = run("revoke", "--user-id", "alice")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("Revoked: ")
    assert len(result.stderr.splitlines()) == 1


def test_an_issuer_that_is_not_configured_is_refused_with_those_that_are(
    run: Run, project: Project
) -> None:
    folder = project(auth=[A, B, "api_key"])
    result = run("revoke", "--token-id", "t1", "--issuer", "https://a.example/")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'https://a.example/' is not configured" in result.stderr
    assert "'https://a.example', 'https://b.example/'" in result.stderr
    assert revocations(folder) == []
    for issuer in ("https://a.example", "https://b.example/"):
        assert run("revoke", "--token-id", "t1", "--issuer", issuer).exit_code == 0


def test_without_any_issuer_none_can_be_named(run: Run, project: Project) -> None:
    project(auth="api_key")
    result = run("revoke", "--token-id", "t1", "--issuer", "us")
    assert result.exit_code == 2
    assert "compared byte for byte: none" in result.stderr


def test_a_method_without_an_issuer_takes_tokens_of_any(run: Run, project: Project) -> None:
    project(auth="jwt")
    assert run("revoke", "--token-id", "t1", "--issuer", "anybody").exit_code == 0


def test_where_nobody_is_asked_for_a_credential_nobody_is_refused(
    run: Run, project: Project
) -> None:
    project(auth=None)
    result = run("revoke", "--user-id", "alice")
    assert result.exit_code == 0
    assert 'Warning: "auth" is none, so nobody is refused.' in result.stderr


@pytest.mark.parametrize(
    "auth",
    [
        [A],
        [A, B],
        [A, {**B, **PRIMARY}],
        [A, "jwt"],
        [A, OPAQUE],
        [{**A, **PRIMARY}, {**OPAQUE, "issuer": "https://a.example"}, B],
        [A, B, {**OPAQUE, **PRIMARY}],
    ],
)
def test_the_ids_are_those_that_the_server_makes(project: Project, auth: Any) -> None:
    folder = project(auth=auth)
    methods = load_config().auth
    opened = open_authenticator(methods, credentials=SqliteStore(folder / "unused.db"))
    verifiers = opened.methods if isinstance(opened, AnyOf) else [opened]
    made = [
        one.rules.namespace for one in verifiers if isinstance(one, JwtAuth | IntrospectionAuth)
    ]
    assert find_namespaces(methods) == made
