"""`agentflow token verify` asks whom the server would ask, whatever kind of method that is."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from typer.testing import Result

from agentflow_server.models import ApiKey
from agentflow_server.stores.sqlite import SqliteStore

Run = Callable[..., Result]
Project = Callable[..., Path]

JWT = {"method": "jwt", "issuer": "us", "secret_key": "${JWT_SECRET_KEY}"}
CUSTOM = {"method": "custom", "path": "project_agent:Own"}
OWN = """
from agentflow_server import BaseAuth

class Own(BaseAuth):
    def recognises(self, credential):
        if credential == "trouble":
            raise RuntimeError("oh no")
        return credential.startswith("own-")

    def authenticate(self, res, credential):
        raise SystemExit("never asked")

def app(messages, config):
    return "here"
"""


class Endpoint:
    """Answers about tokens as it is told in `answers`; others are not active."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        endpoint = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                endpoint.asked += form["token"]
                answer = endpoint.answers.get(form["token"][0], {"active": False})
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/introspect"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def four(project: Project, endpoint: Endpoint, secret: str) -> Path:
    """A project with a class of its own, JWTs of us, API keys, and introspection for the rest."""
    os.environ["JWT_SECRET_KEY"] = os.environ["INTROSPECTION_SECRET"] = secret
    opaque = {
        "method": "introspection",
        "url": endpoint.url,
        "client_id": "agents",
        "client_secret": "${INTROSPECTION_SECRET}",
        "audience": "agents",
        "primary": True,
    }
    return project(agent=OWN, auth=[CUSTOM, JWT, "api_key", opaque])


def verify(run: Run, token: str) -> tuple[int, list[str]]:
    result = run("token", "verify", token)
    assert token not in result.stdout
    return result.exit_code, result.stdout.splitlines()


def stored_keys(folder: Path) -> list[ApiKey]:
    async def list_keys() -> list[ApiKey]:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            return list(await store.list_api_keys())

    return asyncio.run(list_keys())


@pytest.mark.usefixtures("four")
def test_an_opaque_token_is_asked_about_at_its_endpoint(run: Run, endpoint: Endpoint) -> None:
    endpoint.answers["opaque"] = {"active": True, "sub": "alice", "aud": "agents", "scope": "a"}
    code, lines = verify(run, "opaque")
    assert (code, endpoint.asked) == (0, ["opaque"])
    assert lines == [
        "method: auth[3] (introspection)",
        "accepted",
        "user id: 'alice'",
        "scopes: 'a'",
        "roles: none",
    ]
    code, lines = verify(run, "another")
    assert (code, lines[1]) == (1, "refused: inactive (R57)")
    assert "says that it is not active" in lines[2]


@pytest.mark.usefixtures("four")
def test_claims_that_the_endpoint_answers_are_judged_by_the_settings(
    run: Run, endpoint: Endpoint
) -> None:
    endpoint.answers["opaque"] = {"active": True, "sub": "alice", "aud": "others"}
    code, lines = verify(run, "opaque")
    assert (code, lines[1]) == (1, "refused: audience_mismatch (R23)")
    assert "its aud is (in the endpoint's answer)" in lines[2]
    assert "is 'agents'" in lines[2]


@pytest.mark.usefixtures("four")
def test_an_endpoint_that_does_not_work_is_told(run: Run, endpoint: Endpoint) -> None:
    endpoint.answers["opaque"] = {"active": "yes"}
    result = run("token", "verify", "opaque")
    assert result.exit_code == 1
    assert "not judged: introspection_unreadable\nthe introspection endpoint's" in result.stdout


@pytest.mark.usefixtures("four")
def test_a_jwt_of_another_issuer_is_the_last_methods(run: Run, endpoint: Endpoint) -> None:
    other = run("token", "--user-id", "alice", "--claim", "iss=them").stdout.strip()
    code, lines = verify(run, other)
    assert (code, lines[0]) == (1, "method: auth[3] (introspection)")
    assert endpoint.asked == [other]
    assert "iss: 'them'" in lines
    ours = run("token", "--user-id", "alice").stdout.strip()
    code, lines = verify(run, ours)
    assert (code, lines[0]) == (0, "method: auth[1] (jwt)")
    assert endpoint.asked == [other]


def test_a_key_is_looked_up_and_not_used(run: Run, four: Path, endpoint: Endpoint) -> None:
    text = run("api-keys", "create", "--user-id", "alice", "--scope", "admin").stdout.strip()
    code, lines = verify(run, text)
    (key,) = stored_keys(four)
    assert code == 0
    assert lines[:3] == [
        "method: auth[2] (api_key)",
        f"key id: '{key.key_id}'",
        "made for: 'alice'",
    ]
    assert lines[4:] == ["accepted", "user id: 'alice'", "scopes: 'admin'", "roles: none"]
    assert (key.last_used_at, endpoint.asked) == (None, [])


def test_a_key_that_is_refused_is_said_to_be_so_for_its_reason(run: Run, four: Path) -> None:
    text = run("api-keys", "create", "--user-id", "alice").stdout.strip()
    other = run("api-keys", "create", "--user-id", "bob", "--expires", "1s").stdout.strip()
    assert run("api-keys", "revoke", text).exit_code == 0
    code, lines = verify(run, text)
    assert (code, lines[-2]) == (1, "refused: revoked (R61)")
    assert any(line.startswith("revoked: 20") for line in lines)
    for wrong, reason in (("afk_nonsense", "malformed"), (text[:-1], "malformed")):
        code, lines = verify(run, wrong)
        assert (code, lines[1]) == (1, f"refused: {reason}_api_key (R60)")

    (four / ".agentflow" / "agentflow.db").unlink()
    code, lines = verify(run, other)
    assert (code, lines[1]) == (1, "refused: unknown_api_key (R60)")


def change_keys(folder: Path, sql: str) -> None:
    async def change() -> None:
        async with SqliteStore(folder / ".agentflow/agentflow.db") as store:
            await store.write(lambda connection: connection.execute(sql).close())

    asyncio.run(change())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE api_keys SET secret_hash = zeroblob(32)", "wrong_secret (R60)"),
        ("UPDATE api_keys SET expires_at = created_at", "expired (R61)"),
    ],
)
def test_what_the_database_has_against_a_key_is_said(
    run: Run, four: Path, change: str, reason: str
) -> None:
    text = run("api-keys", "create", "--user-id", "alice").stdout.strip()
    change_keys(four, change)
    code, lines = verify(run, text)
    assert (code, lines[-2]) == (1, f"refused: {reason}")
    assert "made for: 'alice'" in lines


@pytest.mark.usefixtures("four")
def test_a_class_of_your_own_decides_when_it_recognises_the_credential(
    run: Run, endpoint: Endpoint
) -> None:
    code, lines = verify(run, "own-credential")
    assert code == 1
    assert lines[:2] == ["method: auth[0] (custom)", "not judged: the class decides"]
    assert "project_agent:Own decides" in lines[2]
    result = run("token", "verify", "trouble")
    assert result.exit_code == 1
    assert "not judged: backend_failed" in result.stdout
    assert endpoint.asked == []


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("text", ["two words", "a,b", "ä", ""])
def test_what_the_server_does_not_take_for_a_token_is_shown_to_no_method(
    run: Run, endpoint: Endpoint, text: str
) -> None:
    result = run("token", "verify", text)
    assert result.exit_code == 1
    assert result.stdout.startswith("refused: not_one_token (R15)\n")
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("revoke", "why"),
    [
        (["--user-id", "alice"], "all of 'alice' that was issued before 20"),
        (["--token-id", "t1"], "the token 't1' is refused, until 20"),
        (["--token-id", "t1", "--issuer", "us"], "the token 't1' is refused, until 20"),
    ],
)
def test_a_token_that_was_revoked_is_refused(
    run: Run, project: Project, secret: str, revoke: list[str], why: str
) -> None:
    os.environ["JWT_SECRET_KEY"] = secret
    project(auth=[JWT, "api_key"])
    token = run("token", "--user-id", "alice", "--claim", "jti=t1", "--claim", "iat=1").stdout
    assert verify(run, token.strip())[0] == 0
    for unrelated in (["--user-id", "bob"], ["--token-id", "t2"]):
        assert run("revoke", *unrelated).exit_code == 0
    assert verify(run, token.strip())[0] == 0
    assert run("revoke", *revoke).exit_code == 0
    code, lines = verify(run, token.strip())
    assert (code, lines[-2]) == (1, "refused: revoked (R68)")
    assert lines[-1].startswith(why)


def test_a_revoked_user_is_refused_with_a_key_too(run: Run, project: Project) -> None:
    folder = project(auth="api_key")
    text = run("api-keys", "create", "--user-id", "alice").stdout.strip()
    assert run("revoke", "--user-id", "alice").exit_code == 0
    change_keys(folder, "UPDATE api_keys SET revoked_at = NULL")
    code, lines = verify(run, text)
    assert (code, lines[0], lines[-2]) == (1, "method: auth (api_key)", "refused: revoked (R68)")


def test_with_keys_alone_anything_else_is_no_key(run: Run, project: Project) -> None:
    project(auth="api_key")
    code, lines = verify(run, "opaque")
    assert (code, lines[1]) == (1, "refused: not_an_api_key (R60)")


def test_another_database_is_looked_into_when_it_is_named(run: Run, project: Project) -> None:
    project(auth="api_key")
    other = ("--database", "sqlite:///other.db")
    text = run("api-keys", "create", "--user-id", "alice", *other).stdout.strip()
    assert run("token", "verify", text).exit_code == 1
    assert run("token", "verify", text, *other).exit_code == 0


def test_without_authentication_everything_is_accepted(run: Run, project: Project) -> None:
    project(auth=None)
    code, lines = verify(run, "whatever")
    assert code == 0
    assert "everybody is the anonymous caller" in lines[1]


def test_a_class_that_cannot_be_loaded_is_explained(run: Run, project: Project) -> None:
    project(auth={"method": "custom", "path": "project_agent:Nothing"})
    result = run("token", "verify", "x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "project_agent" in result.stderr
