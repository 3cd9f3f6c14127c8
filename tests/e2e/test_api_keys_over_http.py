"""R60, R61, R68: API keys and revocations against a real server that is running."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

REFUSED = {"status": 401, "detail": "Could not validate credentials"}


@pytest.fixture
def command(tmp_path: Path, environment: Callable[..., dict[str, str]], secret: str) -> Any:
    """`agentflow …` in a process of its own; returns its stdout."""

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "agentflow_server", *arguments], cwd=tmp_path,
            env=environment(JWT_SECRET_KEY=secret),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    return command


@pytest.fixture
def server(write: Any, start: Any, secret: str) -> Any:
    return start(write({}, auth=["jwt", "api_key"]), JWT_SECRET_KEY=secret)


def make_key(command: Any, *options: str) -> str:
    text: str = command("api-keys", "create", "--user-id", "alice", *options)
    return text


def shown(answer: httpx2.Response) -> dict[str, Any]:
    body = answer.json()
    return {"status": answer.status_code, "detail": body["detail"]}


def test_r61_a_key_works_at_once_and_is_refused_at_once(
    server: Any, command: Any, new_thread: Any, say: Any
) -> None:
    text = make_key(command)
    client = server.client(text)
    thread_id = new_thread(client)
    assert say(client, thread_id, "Hello") == "alice: Hello"
    url = f"/threads/{thread_id}"
    assert server.http.get(url, headers={"X-API-Key": text}).status_code == 200
    command("api-keys", "revoke", text.split("_")[1])
    assert shown(client.get(url)) == REFUSED
    assert shown(server.http.get(url, headers={"X-API-Key": text})) == REFUSED
    assert server.stop() == 0
    secret = text.split("_")[2]
    assert secret[:20] not in server.output


def test_a_key_and_a_token_of_one_user_share_what_is_his(
    server: Any, command: Any, new_thread: Any, secret: str
) -> None:
    thread_id = new_thread(server.client(make_key(command)))
    token = jwt.encode({"user_id": "alice", "exp": time.time() + 600}, secret, "HS256")
    assert server.client(token).get(f"/threads/{thread_id}").status_code == 200


def test_r61_a_key_counts_in_a_header_alone_and_in_one(server: Any, command: Any) -> None:
    text = make_key(command)
    for name in ("api_key", "X-API-Key", "access_token", "key"):
        cookie = {"Cookie": f"{name}={text}"}
        answer = server.http.get("/threads", params={name: text}, headers=cookie)
        assert shown(answer) == {"status": 401, "detail": "Not authenticated"}
    twice = {"X-API-Key": text, "Authorization": f"Bearer {text}"}
    assert server.http.get("/threads", headers=twice).status_code == 401
    several = [("X-API-Key", text), ("X-API-Key", text)]
    assert server.http.get("/threads", headers=several).status_code == 401


def test_without_the_header_only_bearer_counts(
    write: Any, start: Any, command: Any, secret: str
) -> None:
    server = start(write({}, auth={"method": "api_key", "header": False}))
    text = make_key(command)
    assert server.client(text).get("/threads").status_code == 200
    assert server.http.get("/threads", headers={"X-API-Key": text}).status_code == 401


def test_r61_an_expired_key_is_refused(server: Any, command: Any) -> None:
    client = server.client(make_key(command, "--expires", "1s"))
    deadline = time.monotonic() + 30
    while (answer := client.get("/threads")).status_code == 200:
        assert time.monotonic() < deadline
    assert answer.status_code == 401
    assert client.get("/threads").json()["detail"] == "Token has expired"


def test_a_mistyped_key_is_refused_like_any_other(server: Any, command: Any) -> None:
    text = make_key(command)
    swapped = text[:-1] + ("a" if text[-1] != "a" else "b")
    for wrong in (swapped, text.upper(), "afk_", "afk_0123456789ab_" + "A" * 43 + "1iFFS5"):
        assert shown(server.client(wrong).get("/threads")) == REFUSED


def test_the_openapi_document_names_both_ways(server: Any) -> None:
    schemes = server.http.get("/openapi.json").json()["components"]["securitySchemes"].values()
    assert {"type": "apiKey", "in": "header", "name": "X-API-Key"} in [
        {key: scheme.get(key) for key in ("type", "in", "name")} for scheme in schemes
    ]
    assert any(scheme.get("scheme") == "bearer" for scheme in schemes)


@pytest.fixture
def callers(server: Any, secret: str) -> dict[str, httpx2.Client]:
    now = time.time()
    claims = {"iat": now - 5, "exp": now + 600}
    ids = {"alice": "t1", "bob": "t2"}
    return {
        name: server.client(jwt.encode({**claims, "user_id": name, "jti": jti}, secret, "HS256"))
        for name, jti in ids.items()
    }


@pytest.mark.parametrize("option", [("--token-id", "t1"), ("--user-id", "alice")])
def test_r68_a_server_that_starts_later_knows_what_is_revoked(
    server: Any, start: Any, command: Any, callers: Any, secret: str, tmp_path: Path, option: Any
) -> None:
    assert callers["alice"].get("/threads").status_code == 200
    command("revoke", *option)
    tokens = {name: client.headers["Authorization"] for name, client in callers.items()}
    assert server.stop() == 0
    later = start(tmp_path, JWT_SECRET_KEY=secret)
    answers = {
        name: later.http.get("/threads", headers={"Authorization": token})
        for name, token in tokens.items()
    }
    assert shown(answers["alice"]) == REFUSED
    assert answers["bob"].status_code == 200


@pytest.mark.slow
def test_r68_a_running_server_refuses_a_revoked_user_within_a_minute(
    command: Any, callers: Any
) -> None:
    assert callers["alice"].get("/threads").status_code == 200
    command("revoke", "--user-id", "alice")
    deadline = time.monotonic() + 60
    while (answer := callers["alice"].get("/threads")).status_code == 200:
        assert time.monotonic() < deadline, "not refused within a minute"
        time.sleep(0.5)  # nothing but the next answer tells
    assert shown(answer) == REFUSED
    assert callers["bob"].get("/threads").status_code == 200


def test_a_revoked_user_makes_himself_a_new_key(server: Any, command: Any) -> None:
    old = server.client(make_key(command))
    assert old.get("/threads").status_code == 200
    command("revoke", "--user-id", "alice")
    assert shown(old.get("/threads")) == REFUSED
    assert server.client(make_key(command)).get("/threads").status_code == 200
    states = [bool(key["revoked_at"]) for key in json.loads(command("api-keys", "list", "--json"))]
    assert states == [True, False]
