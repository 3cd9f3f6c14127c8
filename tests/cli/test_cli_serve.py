"""`agentflow serve` as a real process."""

import datetime
import ipaddress
import json
import os
import signal
import socket
import ssl
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from agentflow_server.cli.listening import bind, url_of

Project = Callable[..., Path]
Start = Callable[..., Any]

SLOW = """
def app(messages, config):
    with open("begun", "w") as begun:
        begun.write("x")
    with open("go") as go:
        return "finished " + go.read()
"""


def get(url: str, context: ssl.SSLContext | None = None) -> Any:
    with urllib.request.urlopen(url, timeout=30, context=context) as answer:
        return json.loads(answer.read())


def post(url: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body or {}).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def say(url: str, content: str) -> str:
    thread = post(f"{url}/threads")["thread_id"]
    return str(post(f"{url}/threads/{thread}/messages", {"content": content})["message"]["content"])


def test_it_says_where_it_serves_answers_and_ends_cleanly(project: Project, start: Start) -> None:
    folder = project()
    server = start("serve", "--port", "0")
    url = server.wait_for_url()
    assert get(f"{url}/ping?access_token=hunter2") == {"status": "ok"}
    assert say(url, "Hello") == "echo Hello"
    assert server.stop() == 0
    banner = "\n".join(server.stdout)
    assert f"{url}/docs" in banner
    assert "agent (project_agent:app)" in banner
    assert str(folder / ".agentflow/agentflow.db") in banner
    log = "\n".join(server.stderr)
    assert "GET /ping 200" in log
    assert "hunter2" not in log
    assert "Traceback" not in log


def test_ctrl_c_ends_without_a_traceback(project: Project, start: Start) -> None:
    project()
    server = start("serve", "--port", "0")
    server.wait_for_url()
    assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in "\n".join(server.stderr)


def test_a_running_turn_finishes_after_sigterm(project: Project, start: Start) -> None:
    folder = project(agent=SLOW)
    os.mkfifo(folder / "begun")
    os.mkfifo(folder / "go")
    server = start("serve", "--port", "0")
    url = server.wait_for_url()
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(say, url, "Hello")
        (folder / "begun").read_text(encoding="utf-8")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping")
        (folder / "go").write_text("late", encoding="utf-8")
        assert reply.result(timeout=60) == "finished late"
    assert server.wait() == 0


def test_with_json_logs_every_line_is_json(project: Project, start: Start) -> None:
    project()
    server = start("serve", "--port", "0", "--json-logs")
    url = json.loads(server.wait_for("serving on"))["url"]
    get(f"{url}/ping?x=hunter2")
    assert server.stop() == 0
    records = [json.loads(line) for line in server.stderr]
    (access,) = [record for record in records if record["logger"] == "agentflow_server.access"]
    assert (access["method"], access["path"], access["status"]) == ("GET", "/ping", 200)
    assert {"duration_ms", "request_id", "client"} <= access.keys()
    assert server.stdout == []


def test_a_taken_port_is_one_line(project: Project, start: Start) -> None:
    project()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start("serve", "--port", str(port))
        assert server.wait() == 1
    assert server.stdout == []
    assert server.stderr == [f"cannot listen on 127.0.0.1, port {port}: Address already in use"]


def test_a_broken_agent_starts_nothing(project: Project, start: Start) -> None:
    project(agent="1 / 0\n")
    server = start("serve", "--port", "0")
    assert server.wait() == 2
    assert server.stdout == []
    assert "ZeroDivisionError: division by zero" in server.stderr
    assert "agentflow_server" not in "\n".join(server.stderr)


def test_a_database_that_does_not_open_is_one_line(project: Project, start: Start) -> None:
    folder = project(database="sqlite:///data.db")
    (folder / "data.db").mkdir()
    server = start("serve", "--port", "0")
    assert server.wait() == 2
    assert server.stdout == []
    assert len(server.stderr) == 1


def test_an_open_server_written_down_is_warned_about(project: Project, start: Start) -> None:
    project(auth="none")
    server = start("serve", "--port", "0", "--host", "0.0.0.0")
    assert server.wait_for_url().startswith("http://127.0.0.1:")
    assert server.stop() == 0
    assert "everybody may use this server" in server.stderr[0]


def test_a_change_is_reloaded(project: Project, start: Start) -> None:
    folder = project(env="my.env", agent="import os\ndef app(m, c):\n    return os.environ['X']\n")
    (folder / "my.env").write_text("X=one\n", encoding="utf-8")
    server = start("serve", "--port", "0", "--reload")
    url = server.wait_for_url()
    assert say(url, "Hello") == "one"
    (folder / "my.env").write_text("X=two\n", encoding="utf-8")
    assert server.wait_for_url() == url
    assert say(url, "Hello") == "two"
    assert server.stop() == 0
    assert "Traceback" not in "\n".join(server.stderr)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(made.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    locked = BestAvailableEncryption(b"x")
    (tmp_path / "locked.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    )
    return cert_file, key_file


def test_it_serves_tls(project: Project, start: Start, certificate: tuple[Path, Path]) -> None:
    project()
    cert, key = certificate
    server = start("serve", "--port=0", f"--ssl-certfile={cert}", f"--ssl-keyfile={key}")
    url = server.wait_for_url()
    assert url.startswith("https://")
    context = ssl.create_default_context(cafile=cert)
    assert get(f"{url}/ping", context) == {"status": "ok"}
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--ssl-keyfile", "key.pem"], "--ssl-keyfile: is of no use without --ssl-certfile"),
        (["--ssl-certfile", "agentflow.json"], "--ssl-certfile, --ssl-keyfile: cannot be used"),
        (
            ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "locked.pem"],
            "--ssl-certfile, --ssl-keyfile: cannot be used",
        ),
    ],
)
def test_a_useless_certificate_is_one_line(
    project: Project,
    run: Callable[..., Any],
    certificate: tuple[Path, Path],
    arguments: list[str],
    line: str,
) -> None:
    project()
    result = run("serve", "--port", "0", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(line)
    assert len(result.stderr.splitlines()) == 1


def test_a_name_is_bound_at_every_address() -> None:
    sockets = bind("localhost", 0)
    assert len(sockets) == 1
    port = sockets[0].getsockname()[1]
    for one in sockets:
        one.close()
    sockets = bind("localhost", port)
    try:
        assert sockets[0].getsockname()[:2] == ("127.0.0.1", port)
        assert {one.getsockname()[1] for one in sockets} == {port}
        assert url_of("localhost", sockets, encrypted=False) == f"http://localhost:{port}"
        assert url_of("0.0.0.0", sockets, encrypted=True) == f"https://127.0.0.1:{port}"
        assert url_of("::1", sockets, encrypted=False) == f"http://[::1]:{port}"
    finally:
        for one in sockets:
            one.close()


def test_an_address_that_this_machine_lacks_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    names = [
        (socket.AF_INET, 1, 6, "", (address, port)) for address in ("127.0.0.1", "203.0.113.7")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: names)
    (only,) = bind("both.example", port)
    assert only.getsockname()[0] == "127.0.0.1"
    only.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_leaves_ipv4_alone() -> None:
    (one,) = bind("::1", 0)
    assert one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    one.close()


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_a_foreign_address_cannot_be_bound(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bind(host, 0)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cannot listen on {host}, port 0: ")
