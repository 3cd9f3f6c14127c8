"""The examples, started as their READMEs say, answer the READMEs' own commands as promised."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

PRINTED_URL = "http://127.0.0.1:8000"
END = "=== end of a block ==="
BLOCK = re.compile(r"```bash\n(.*?)```\n+(?:```text\n(.*?)```)?", re.DOTALL)


@pytest.fixture
def example(root: Path, tmp_path: Path) -> Any:
    """A copy, so that the repository stays as it is."""

    def example(name: str) -> Path:
        left_behind = shutil.ignore_patterns("__pycache__", ".agentflow")
        return shutil.copytree(root / "examples" / name, tmp_path / name, ignore=left_behind)

    return example


def all_examples() -> list[str]:
    folder = Path(__file__).parents[2] / "examples"
    return sorted(file.parent.name for file in folder.glob("*/agentflow.json"))


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with what a new user has after `pip install`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, given in {"python": "", "agentflow": "-m agentflow_server"}.items():
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {given} "$@"\n', encoding="utf-8")
        command.chmod(0o755)
    return folder


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("name", all_examples())
def test_the_commands_of_an_example_answer_as_its_readme_says(
    name, example, start, installed, environment
):
    folder = example(name)
    # A token server has to know its address before it listens: port 0 will not do.
    server = start(folder, "--port", str(find_free_port())) if name == "login" else start(folder)
    blocks = BLOCK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert blocks
    script = "".join(f"{commands}\necho; echo '{END}'\n" for commands, _ in blocks)
    script = script.replace(PRINTED_URL, server.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder,
        env=environment(PATH=f"{installed}:{os.environ['PATH']}"),
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    answers = done.stdout.split(END)[:-1]
    for (commands, expected), answer in zip_longest(blocks, answers):
        pattern = re.escape(expected.strip()).replace("…", ".*")
        assert re.fullmatch(pattern, answer.strip(), re.DOTALL), f"{commands}\n{answer}"
    assert server.stop() == 0
    assert "Traceback" not in server.output


def test_9_the_example_configuration_serves_the_echo_example(
    root, tmp_path, start, new_thread, say
):
    left_behind = shutil.ignore_patterns("__pycache__", ".agentflow")
    shutil.copytree(root / "examples" / "echo", tmp_path / "examples" / "echo", ignore=left_behind)
    shutil.copy(root / "agentflow.json.example", tmp_path / "agentflow.json")
    server = start(tmp_path)
    assert say(server.http, new_thread(server.http), "Hello") == "stranger, you said: Hello"


class FakeOpenAI(ThreadingHTTPServer):
    """Streams chat completions: first a call of a tool, then an answer, word by word."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Completions)
        self.requests: list[tuple[str, dict[str, Any]]] = []


class _Completions(BaseHTTPRequestHandler):
    server: FakeOpenAI

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.headers["Authorization"], body))
        assert self.path == "/v1/chat/completions"
        assert body["stream"] is True
        deltas = _answer() if body["messages"][-1]["role"] == "tool" else _call()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for delta, reason in deltas:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
                "model": body["model"], "choices": [choice],
            }  # fmt: skip
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: Any) -> None:
        pass


def _call() -> list[tuple[dict[str, Any], str | None]]:
    function = {"name": "find_order", "arguments": '{"order_id": "B-4"}'}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return [
        ({"role": "assistant", "content": None, "tool_calls": [call]}, None),
        ({}, "tool_calls"),
    ]


def _answer() -> list[tuple[dict[str, Any], str | None]]:
    words = ["It ", "waits ", "for ", "payment."]
    return [*[({"role": "assistant", "content": word}, None) for word in words], ({}, "stop")]


@pytest.fixture
def openai() -> Iterator[FakeOpenAI]:
    server = FakeOpenAI()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_with_a_key_the_langgraph_example_asks_a_model_and_streams_its_tokens(
    example, start, openai, new_thread
):
    server = start(
        example("langgraph"),
        OPENAI_API_KEY="key-of-the-test",
        OPENAI_BASE_URL=f"http://127.0.0.1:{openai.server_port}/v1",
        OPENAI_MODEL="some-model",
    )
    thread_id = new_thread(server.http)
    question = {"content": "What about B-4?", "stream": True}
    answer = server.http.post(f"/threads/{thread_id}/messages", json=question)
    assert re.findall(r'"delta":"([^"]*)"', answer.text) == ["It ", "waits ", "for ", "payment."]
    assert '"result":"Order B-4: waiting for payment."' in answer.text
    assert answer.text.count("event: run.completed") == 1
    assert [key for key, _ in openai.requests] == ["Bearer key-of-the-test"] * 2
    first, second = (body for _, body in openai.requests)
    assert first["model"] == "some-model"
    assert [tool["function"]["name"] for tool in first["tools"]] == ["find_order", "calculate"]
    assert second["messages"][-1]["content"] == "Order B-4: waiting for payment."
