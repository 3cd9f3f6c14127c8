"""What the README of a new project says, done word for word against the real server."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from dotenv import dotenv_values

pytestmark = pytest.mark.slow


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Runs lines of sh in the project; `python` and `agentflow` are the ones under test."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, arguments in [("python", ""), ("agentflow", "-m agentflow_server ")]:
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    for name in ("JWT_SECRET_KEY", "JWT_ISSUER", "JWT_AUDIENCE", "API_KEYS", "MFA_SECRETS"):
        monkeypatch.delenv(name, raising=False)

    def run(lines: str, *, folder: Path, token: str = "") -> str:
        finished = subprocess.run(
            ["sh", "-ec", f"TOKEN='{token}'\n{lines}"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


@pytest.fixture
def serve(shell, tmp_path) -> Iterator:
    """Starts the server in a folder, on a free port; returns its URL."""
    running: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> str:
        command = ["agentflow", "serve", "--port", "0"]
        with (tmp_path / "server.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
            )
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found[0]
        pytest.fail((tmp_path / "server.log").read_text())

    yield start
    for process in running:
        process.terminate()
        process.communicate(timeout=30)


def known_token(auth: str, project: Path, output: str) -> str:
    """What the reader has to fill in by hand."""
    if auth == "api_key":
        return output.partition("shown only now: ")[2].split()[0]
    if auth == "custom":
        return next(iter(json.loads(dotenv_values(project / ".env")["CUSTOM_AUTH_TOKENS"])))
    return "not-a-real-token"


@pytest.mark.parametrize("auth", ["none", "jwt", "custom", "api_key", "database", "mfa"])
def test_the_readme_leads_to_an_answer(shell, serve, tmp_path, auth):
    output = shell(f"agentflow init shop --auth {auth}", folder=tmp_path)
    project = tmp_path / "shop"
    blocks = re.findall(r"```sh\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)
    assert blocks[0] == "pip install -r requirements.txt\nagentflow serve\n"
    url = serve(project)
    token = ""
    if auth != "none":
        lines = re.sub("TOKEN=<.*>", f"TOKEN='{known_token(auth, project, output)}'", blocks[1])
        token = shell(f"{lines}\nprintf %s $TOKEN", folder=project)
    create, send = re.findall(r"curl.*?(?=\ncurl|\Z)", blocks[-1], re.DOTALL)
    thread = json.loads(
        shell(create.replace("http://127.0.0.1:8000", url), folder=project, token=token)
    )
    send = send.replace("http://127.0.0.1:8000", url).replace("<thread_id>", thread["thread_id"])
    reply = json.loads(shell(send, folder=project, token=token))
    assert reply["message"]["content"] == "6 * 7 = 42"


def plausible_token() -> str:
    """It looks right, as far as one can see without the other side's keys."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    claims = {
        "sub": "alice",
        "aud": "your-project-id",
        "iss": "https://securetoken.google.com/your-project-id",
        "exp": time.time() + 60,
    }
    return jwt.encode(claims, key, "RS256", {"kid": "1"})


@pytest.mark.parametrize(
    ("auth", "variable", "value"),
    [
        ("oauth", "OAUTH_USERINFO_URL", "http://127.0.0.1:9/userinfo"),
        ("firebase", "HTTPS_PROXY", "http://127.0.0.1:9"),
    ],
)
def test_without_its_network_nobody_gets_in(
    shell, serve, tmp_path, monkeypatch, auth, variable, value
):
    monkeypatch.setenv(variable, value)
    shell(f"agentflow init shop --auth {auth}", folder=tmp_path)
    url = serve(tmp_path / "shop")
    curl = f'curl -s -i -X POST {url}/threads -H "Authorization: Bearer $TOKEN"'
    answer = shell(curl, folder=tmp_path, token=plausible_token())
    assert answer.startswith("HTTP/1.1 503")
    assert "retry-after: 5" in answer.lower()
    assert "unavailable" in answer
