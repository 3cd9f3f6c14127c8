"""R81, R82 and R83: after an attack no log, no audit log and no database holds a secret."""

import base64
import json
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import jwt
import pytest

SECRET = "Zk3vJ9qXw2LrT8sYbN5mHc7Pd1Gf4Ae6-signing-canary"
AUDIT_KEY = "Qm8xWz4nVb1kTc7yRf3jHg9pLs6dUa2e-sealing-canary"
PASSWORD = "open-sesame-password-canary-0451"
PROMPT = "prompt-canary: where have I hidden the treasure?"
HOSTILE = "k\r\n2026-01-01 INFO all is well \x1b[2J\u202e\u2028"


def token(secret: str = SECRET, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    payload = {"user_id": "alice", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(payload, secret, algorithm="HS256", headers=headers)


class Attack:
    """Sends everything that goes wrong, and remembers which secrets it has sent."""

    def __init__(self, url: str, api_key: str) -> None:
        self.client = httpx2.Client(base_url=url, timeout=60)
        self.requests = 0
        self.answers: list[bytes] = []
        self.api_key = api_key
        half = len(api_key) // 2
        self.credentials = {
            "good": token(),
            "another user's": token(user_id="bob", jti="canary-token-id"),
            "expired": token(exp=int(time.time()) - 600),
            "wrong signature": token("another secret that is long enough to sign with"),
            "hostile kid": token(headers={"kid": HOSTILE}),
            "hostile user": token(user_id=HOSTILE, jti=HOSTILE),
            "hostile sub": token(user_id=None, sub=HOSTILE),
            "unsigned": jwt.encode({"user_id": "alice"}, None, algorithm="none"),  # type: ignore[arg-type]
            "cut off": token(jti="cut")[:-7],
            "four segments": token(jti="four") + "." + "x" * 40,
            "opaque": "opaque-canary-credential-7f3a9c",
            "not ASCII": "latin-canary-\xfc\xe9\xff-credential",
            "huge": "huge-canary-" + "A" * 20_000,
            "good API key": api_key,
            "wrong API key": api_key[:half] + api_key[half:][::-1],
        }

    def send(self, method: str, url: str, **options: Any) -> httpx2.Response:
        self.requests += 1
        answer = self.client.request(method, url, **options)
        self.answers += [answer.content, str(answer.headers.multi_items()).encode()]
        return answer

    def run(self) -> None:
        good = self.credentials["good"]
        for credential in self.credentials.values():
            self._present(credential)
            self._hide(credential, good)
        basic = base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
        self.send("GET", "/threads", headers={"Authorization": f"Basic {basic}"})
        self.send("POST", f"/token?grant_type=password&password={PASSWORD}")
        self.send("POST", "/token", data={"username": "alice", "password": PASSWORD})
        for path in (f"/threads/{quote(HOSTILE)}", f"/{quote(HOSTILE)}", f"/ping/{quote(HOSTILE)}"):
            for headers in ({}, {"Authorization": f"Bearer {good}"}):
                assert self.send("GET", path, headers=headers).status_code in {401, 404}
        self._talk(good)

    def _present(self, credential: str) -> None:
        """Where a credential belongs, and beside it."""
        value = credential.encode("latin-1")
        for headers in (
            [(b"Authorization", b"Bearer " + value)],
            [(b"Authorization", b"bearer   " + value)],
            [(b"Authorization", b"Token " + value)],
            [(b"Authorization", value)],
            [(b"Authorization", b"Bearer " + value), (b"Authorization", b"Bearer " + value)],
            [(b"X-API-Key", value)],
            [(b"X-Auth-Token", value), (b"X-Forwarded-User", value)],
            [(b"Cookie", b"session=" + value)],
        ):
            self.send("GET", "/threads", headers=headers)
            self.send("POST", "/threads", headers=headers, content=b"{")

    def _hide(self, credential: str, good: str) -> None:
        """Where a client might put it by mistake."""
        encoded = quote(credential, safe="")[:4000]
        self.send("GET", f"/threads?access_token={encoded}&token={encoded}")
        self.send("GET", f"/ping?access_token={encoded}")
        headers = {"Authorization": f"Bearer {good}"}
        self.send("GET", f"/threads?cursor={encoded}", headers=headers)
        for body in ({credential: 1}, {"metadata": credential}, {"access_token": credential}):
            self.send("POST", "/threads", json=body)
            self.send("POST", "/threads", json=body, headers=headers)
        broken = f'{{"access_token": "{credential}"'.encode()
        json_type = {"Content-Type": "application/json"}
        self.send("POST", "/threads", content=broken, headers={**headers, **json_type})

    def _talk(self, good: str) -> None:
        headers = {"Authorization": f"Bearer {good}"}
        thread = self.send("POST", "/threads", headers=headers)
        assert thread.status_code == 200, thread.text
        url = f"/threads/{thread.json()['thread_id']}/messages"
        answer = self.send("POST", url, headers=headers, json={"content": PROMPT})
        assert answer.json()["message"]["content"] == "noted"
        self.send("POST", url, headers=headers, json={"content": PROMPT, "unknown": PROMPT})
        self.send("POST", url, json={"content": PROMPT})

    def speak_no_http(self, port: int) -> None:
        good = self.credentials["good"].encode()
        for text in (
            b"GET /threads HTTP/1.1\r\nAuthorization: Bearer " + good + b"\r\nbroken\r\n\r\n",
            b"GET /threads?token=" + good + b" HTTP/9.9\r\n\r\n",
            good + b"\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(text)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    @property
    def secrets(self) -> dict[str, str]:
        found = {"signing key": SECRET, "audit key": AUDIT_KEY, "password": PASSWORD}
        for name, credential in self.credentials.items():
            found[f"{name} credential"] = credential[:2000]
            segments = credential.split(".")
            if len(segments) > 2:
                found |= {f"{name}: payload": segments[1], f"{name}: signature": segments[2]}
        # Without its secret half a key is only a name, which may be shown.
        found["API key's secret"] = self.api_key[-24:]
        return {name: secret for name, secret in found.items() if secret}


def configure(sink: str) -> dict[str, Any]:
    """With one of the ways to keep the audit log, and limits that let the attack go on."""
    path = {"path": "logs/audit.log"} if sink == "file" else {}
    return {
        "auth": ["jwt", "api_key"],
        "observability": {"audit": {"sink": sink, **path}},
        "rate_limit": {"failed_auth": "100000/minute"},
    }


def contents(folder: Path, output: bytes) -> dict[str, bytes]:
    """Everything that was written: the output, and every file but those the test itself made."""
    own = {"agentflow.json", "attacked.py"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in own]
    return {
        "the output": output,
        **{str(path.relative_to(folder)): path.read_bytes() for path in files},
    }


@pytest.mark.parametrize(
    ("sink", "options"),
    [("file", ()), ("database", ("--json-logs",)), ("stdout", ("--json-logs",))],
)
def test_r8_r81_r82_r83_no_secret_is_written_down(
    project: Callable[..., Path],
    serve: Callable[..., Any],
    agentflow: Callable[..., str],
    leaks: Callable[..., list[str]],
    sink: str,
    options: Sequence[str],
) -> None:
    folder = project(**configure(sink))
    own = {"JWT_SECRET_KEY": SECRET, "AGENTFLOW_AUDIT_KEY": AUDIT_KEY}
    api_key = agentflow(folder, "api-keys", "create", "--user-id", "carol", **own)
    server = serve(folder, "--log-level", "debug", *options, **own)
    attack = Attack(server.url, api_key)
    attack.run()
    attack.speak_no_http(server.port)
    attack.client.close()
    assert server.stop() == 0
    places = contents(folder, b"\n".join(server.lines))
    assert leaks({**places, "the answers": b"\n".join(attack.answers)}, attack.secrets) == []
    # What was said is in the database, where it belongs, and nowhere else.
    logs = {name: text for name, text in places.items() if ".db" not in name}
    assert leaks(logs, {"prompt": PROMPT}) == []
    assert b"Traceback" not in places["the output"]
    check_lines(server.lines, attack.requests)
    if sink != "stdout":
        assert "None was changed" in agentflow(folder, "audit", "verify", **own)
        newest = agentflow(folder, "audit", "tail", "-n", "100000", **own).splitlines()
        check_audit([json.loads(line) for line in newest])


def check_lines(lines: Sequence[bytes], requests: int) -> None:
    """Nobody can write a line of his own, or make a terminal obey him."""
    text = [line.decode("utf-8") for line in lines]
    assert [line for line in text if any(c in line for c in "\r\x1b\u202e\u2028\0")] == []
    accesses = [line for line in text if '"agentflow_server.access"' in line or " ms 127." in line]
    # Three more were no HTTP; one of them, of a version that is none, may have been understood.
    assert requests <= len(accesses) <= requests + 3


def check_audit(events: Sequence[dict[str, Any]]) -> None:
    results = {(event["result"], event.get("reason")) for event in events}
    assert any(result == "success" for result, _ in results)
    assert len({reason for result, reason in results if result == "failure"}) > 3
    users = {event.get("user_id") for event in events if event["result"] == "success"}
    assert {"alice", "bob", "carol"} <= users


SIGNATURE = "XHDGnVR7Ws-3VzrXjB9sm5VJ7LOnH985jfZsEjw4O_o"


@pytest.mark.parametrize("secret", [SECRET, "k\u00fcrzer-passwort", SIGNATURE])
def test_the_search_knows_every_disguise(leaks: Callable[..., list[str]], secret: str) -> None:
    plain = secret.encode()
    for written in (
        plain,
        plain.hex().encode(),
        quote(secret, safe="").encode(),
        json.dumps({"secret": secret}).encode(),
        repr(secret).encode(),
        *(base64.b64encode(b"a" * shift + plain + b"tail") for shift in range(6)),
        *(base64.urlsafe_b64encode(b"a" * shift + plain) for shift in range(6)),
    ):
        assert leaks({"a log": b"before " + written + b" after"}, {"it": secret})
    assert leaks({"a log": b"nothing at all"}, {"it": secret}) == []
