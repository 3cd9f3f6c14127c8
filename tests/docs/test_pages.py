"""What the README and the documentation say works as they say it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from agentflow_server.config import read_config
from agentflow_server.models import EventType
from agentflow_server.web import errors as web_errors


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def reader(tmp_path):
    """Someone who follows the README in a fresh folder: writes its files, types its lines."""

    class Reader:
        port = free_port()
        folder = tmp_path
        server = None

        def __init__(self):
            commands = tmp_path / "bin"
            commands.mkdir()
            (commands / "agentflow").write_text(
                f'#!/bin/sh\nexec {sys.executable} -m agentflow_server "$@"\n'
            )
            (commands / "agentflow").chmod(0o755)
            self.env = {
                k: v for k, v in os.environ.items() if not k.startswith(("JWT_", "AGENTFLOW_"))
            }
            self.env["PATH"] = f"{commands}:{self.env['PATH']}"

        def write(self, block, path=None):
            target = self.folder / (path or block.path)
            target.parent.mkdir(exist_ok=True)
            target.write_text(block.text)

        def serve(self):
            self.stop()
            env = self.env | {"AGENTFLOW_PORT": str(self.port)}
            self.server = subprocess.Popen(
                ["agentflow", "serve"], cwd=self.folder, env=env,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            until = time.monotonic() + 20
            while time.monotonic() < until:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=1).read()
                except OSError:
                    assert self.server.poll() is None, self.server.stdout.read()
                else:
                    return
            raise AssertionError("the server did not answer")

        def type(self, *blocks):
            script = "\n".join(block.text for block in blocks)
            script = script.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
            done = subprocess.run(
                ["bash", "-euc", script], cwd=self.folder, env=self.env, text=True,
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout

        def stop(self):
            if self.server is not None:
                self.server.send_signal(signal.SIGTERM)
                self.server.communicate(timeout=20)
                self.server = None

    someone = Reader()
    yield someone
    someone.stop()


def block_with(blocks, text, language="bash"):
    return next(block for block in blocks if text in block.text and block.language == language)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_first_sixty_seconds_work_as_printed(reader, readme):
    for block in readme:
        if block.path == "graph/react.py":
            reader.write(block)
            break
    reader.write(next(block for block in readme if block.path == "agentflow.json"))
    reader.serve()
    created = block_with(readme, "curl -X POST http://127.0.0.1:8000/threads\n")
    assert json.loads(reader.type(created))["status"] == "idle"
    answer = json.loads(reader.type(block_with(readme, "THREAD=")))
    assert answer["message"]["content"] == "stranger, you said: Hello"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_jwt_lines_work_as_printed(reader, readme):
    reader.write(next(block for block in readme if block.path == "graph/react.py"))
    reader.write(block_with(readme, '"auth": "jwt"', "json"), "agentflow.json")
    lines = block_with(readme, "agentflow secret").text.splitlines(keepends=True)
    make_secret = type(readme[0])("README.md", "bash", lines[0], None)
    reader.type(make_secret)
    reader.serve()
    use_token = type(readme[0])("README.md", "bash", "".join(lines[1:]), None)
    assert json.loads(reader.type(use_token)) == {"data": [], "next_cursor": None}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_custom_class_and_the_agent_that_uses_its_claims_work_as_printed(reader, readme):
    reader.write(next(block for block in readme if block.path == "auth/custom.py"))
    reader.write(block_with(readme, 'config.get("roles", [])', "python"), "graph/react.py")
    config = {
        "agent": "graph.react:app",
        "auth": {"method": "custom", "path": "auth.custom:MyAuthBackend"},
    }
    (reader.folder / "agentflow.json").write_text(json.dumps(config))
    reader.serve()
    line = (
        'H="Authorization: Bearer key-of-alice-7f3d"; U=http://127.0.0.1:8000/threads; '
        'T=$(curl -s -X POST $U -H "$H" | python3 -c \'import json,sys; '
        'print(json.load(sys.stdin)["thread_id"])\'); '
        'curl -s $U/$T/messages -H "$H" -H \'Content-Type: application/json\' -d \'{"content": "x"}\''
    )
    answer = json.loads(reader.type(type(readme[0])("", "bash", line, None)))
    assert answer["message"]["content"] == "At your service, alice."


def test_every_example_of_a_config_is_valid(pages, tmp_path, monkeypatch):
    monkeypatch.setenv("JWT_SECRET_KEY", "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6")
    (tmp_path / ".env").write_text("")
    seen = 0
    for block in pages:
        if block.language == "json" and re.search(r'"agents?":\s*["{].*:\w+"', block.text):
            (tmp_path / "agentflow.json").write_text(block.text)
            read_config(tmp_path / "agentflow.json")
            seen += 1
    assert seen >= 6


def test_every_block_of_python_and_json_can_be_read(pages):
    for block in pages:
        if block.language == "python":
            compile(block.text, block.page, "exec")
        elif block.language == "json":
            json.loads(block.text)
    assert len(pages) > 20


def test_every_link_to_a_file_leads_somewhere(root):
    for page in [root / "README.md", root / "SECURITY.md", *root.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_event_and_every_error_code_is_documented(root):
    api = (root / "docs/api.md").read_text(encoding="utf-8")
    for name in EventType.__args__:
        assert f"`{name}`" in api, name
    errors = (root / "docs/errors.md").read_text(encoding="utf-8")
    for error, status in web_errors.STATUS.items():
        if error.code not in {"internal_error", "conflict", "run_failed"}:
            assert f"| {status} | `{error.code}`" in errors, error.code


def test_every_config_key_is_documented(root):
    schema = json.loads((root / "agentflow_server/config/agentflow.schema.json").read_text())
    page = (root / "docs/configuration.md").read_text(encoding="utf-8")
    keys = set(schema["properties"]) - {"$schema"}
    for section in ("limits", "cors", "runs"):
        reference = json.dumps(schema["properties"][section])
        name = re.search(r"#/\$defs/(\w+)", reference)[1]
        keys |= set(schema["$defs"][name]["properties"])
    assert len(keys) > 20
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_every_route_is_documented(root, monkeypatch):
    from agentflow_server.app import SECURED

    page = (root / "docs/api.md").read_text(encoding="utf-8")
    for router in SECURED:
        for route in router.routes:
            assert route.path in page, route.path
