"""The snippets of AgentFlow's authentication guide, as printed; only hosts, tokens and ids differ."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

WEAK_JWT = {"method": "jwt", "allow_weak_secret": True}
PLACEHOLDER = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9..."
AGENT = """
def app(messages, config):
    return f"{config['user_id']} {config.get('roles')}: {messages[-1]['content']}"
"""

needs_node = pytest.mark.skipif(not shutil.which("node"), reason="needs Node")
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")


def printed(name: str, **replacements: str) -> str:
    text = (Path(__file__).parent / "guide" / f"{name}.txt").read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture
def run(tmp_path: Path, environment: Callable[..., dict[str, str]]) -> Callable[..., str]:
    def run(*command: str) -> str:
        """What the command prints."""
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def token(secret: str) -> str:
    return jwt.encode({"user_id": "user123", "exp": 4102444800}, secret, "HS256")


@pytest.fixture
def server(write: Any, start: Any, secret: str) -> Any:
    return start(write({"agent.py": AGENT}, auth="jwt"), JWT_SECRET_KEY=secret)


@pytest.fixture
def weak_server(write: Any, start: Any) -> Any:
    """The guide signs with a secret that everybody knows."""
    return start(write({}, auth=WEAK_JWT), JWT_SECRET_KEY="your-secret-key")


@needs_curl
def test_curl_without_authentication(write, start, run):
    server = start(write({}))
    answers = run("bash", "-ec", printed("no_auth.sh", **{"http://localhost:8000": server.url}))
    ping, _, thread = answers.partition("}")
    assert json.loads(ping + "}") == {"status": "ok"}
    assert json.loads(thread)["status"] == "idle"


@needs_curl
def test_curl_with_a_token(server, run, token, new_thread):
    thread_id = new_thread(server.client(token))
    here = {"http://localhost:8000": server.url, PLACEHOLDER: token}
    answers = run("bash", "-ec", printed("send_message.sh", abc123=thread_id, **here))
    thread, _, turn = answers.partition("}{")
    assert json.loads("{" + turn)["message"]["content"] == "user123 None: Hello"
    answers = run("bash", "-ec", printed("list_threads.sh", **here))
    assert answers.startswith('{"status":"ok"}')
    listed = json.loads(answers.removeprefix('{"status":"ok"}'))["data"]
    assert {thread_id, json.loads(thread + "}")["thread_id"]} == {
        found["thread_id"] for found in listed
    }


def test_python_requests(server, run, token):
    here = {"http://localhost:8000": server.url, PLACEHOLDER: token}
    answer = run(sys.executable, "-c", printed("send_message.py", **here))
    assert "'content': 'user123 None: Hello, AI!'" in answer


@needs_node
def test_javascript_fetch_under_node(server, run, token):
    here = {"http://localhost:8000": server.url, PLACEHOLDER: token}
    answer = run("node", "--eval", printed("send_message.js", **here))
    assert "content: 'user123 None: Hello, AI!'" in answer


def test_a_token_made_in_python_is_accepted(weak_server, run):
    answer = run(sys.executable, "-W", "ignore", "-c", printed("create_token.py"))
    made = answer.removeprefix("Token: ").strip()
    assert weak_server.client(made).get("/threads").status_code == 200


# What jsonwebtoken's `sign` does, for machines without that package.
JSONWEBTOKEN = """
const { createHmac } = require('node:crypto');
const encode = value => Buffer.from(JSON.stringify(value)).toString('base64url');
exports.sign = (payload, secret, { algorithm }) => {
  const signed = `${encode({ alg: algorithm, typ: 'JWT' })}.${encode(payload)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
};
"""


@needs_node
def test_a_token_made_in_node_is_accepted(weak_server, run, tmp_path):
    package = tmp_path / "node_modules" / "jsonwebtoken"
    package.mkdir(parents=True)
    (package / "index.js").write_text(JSONWEBTOKEN, encoding="utf-8")
    answer = run("node", "--eval", printed("create_token.js"))
    made = answer.removeprefix("Token: ").strip()
    assert weak_server.client(made).get("/threads").status_code == 200


CUSTOM = {"method": "custom", "path": "auth.custom:MyAuthBackend"}


def test_the_custom_backend_as_printed_lets_nobody_in(write, start):
    server = start(write({"auth/custom.py": printed("custom.py")}, auth=CUSTOM))
    without = server.http.get("/threads")
    assert (without.status_code, without.json()["detail"]) == (401, "Not authenticated")
    refused = server.client("some-token").get("/threads")
    assert refused.status_code == 401
    assert refused.json()["detail"] == "Invalid authentication credentials"


def test_the_custom_backend_with_its_gap_filled_hands_its_claims_to_the_agent(
    write, start, new_thread, say
):
    known = '{"good": {"id": 7, "username": "alice", "email": "a@example.com", "roles": ["admin"]}}'
    gap = "# Example: Query database, call external API, etc.\n        pass"
    backend = printed("custom.py", **{gap: f"return {known}.get(token)"})
    server = start(write({"agent.py": AGENT, "auth/custom.py": backend}, auth=CUSTOM))
    client = server.client("good")
    assert say(client, new_thread(client), "Hello") == "7 ['admin']: Hello"
    assert server.client("bad").get("/threads").status_code == 401


def test_its_pytest_file_passes(write, tmp_path, environment):
    main = "from agentflow_server import create_app\napp = create_app()\n"
    tests = printed("test_auth.py")
    write({"app/main.py": main, "tests/test_auth.py": tests}, auth=WEAK_JWT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path, env=environment(JWT_SECRET_KEY="test-secret"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
