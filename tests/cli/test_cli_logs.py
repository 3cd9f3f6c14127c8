"""A record is a line, whatever is in it."""

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import SecretStr

from agentflow_server.auth.custom import CustomAuth
from agentflow_server.cli.banner import addresses, print_banner, summarise
from agentflow_server.cli.logs import escape, set_up_logs
from agentflow_server.config import (
    ApiKeyConfig,
    AuthConfig,
    Config,
    CustomAuthConfig,
    Discovery,
    IntrospectionConfig,
    JwksFile,
    JwksUrl,
    JwtConfig,
    KeyConfig,
    NoAuthConfig,
    StaticKeys,
)
from agentflow_server.errors import AuthUnavailable
from agentflow_server.interfaces import BaseAuth

HOSTILE = "a\r\nb\x1b[31m\u202e\u2028\ud800\x00\x9b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def break_with(text: str) -> None:
    raise ValueError(text)


def test_escaping_keeps_ordinary_text() -> None:
    assert escape("Grüße – 你好 🎉 'x' \\n") == "Grüße – 你好 🎉 'x' \\n"
    assert escape(HOSTILE) == r"a\r\nb\x1b[31m\u202e\u2028\ud800\x00\x9b"


async def test_a_failing_backend_is_readable_and_shows_no_credential() -> None:
    token = "s3cr3t-t0ken.with-parts:123456"

    class Failing(BaseAuth):
        def authenticate(self, res: Response, credential: HTTPAuthorizationCredentials) -> Any:
            raise LookupError(f"no row for {credential.credentials}\x1b[2J")

    async def fail_into(*, as_json: bool) -> str:
        stream = io.StringIO()
        set_up_logs("info", as_json=as_json, stream=stream)
        bearer = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
        request = HTTPConnection({"type": "http", "headers": []})
        with pytest.raises(AuthUnavailable):
            await CustomAuth(Failing()).authenticate(request, Response(), bearer)
        text = stream.getvalue()
        assert "s3cr3t" not in text
        assert "\x1b" not in text
        return text

    lines = (await fail_into(as_json=False)).splitlines()
    assert lines[0].endswith("Failing failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == r"LookupError: no row for [credential]\x1b[2J"
    record = json.loads(await fail_into(as_json=True))
    assert record["exception"].splitlines()[0] == "Traceback (most recent call last):"


@pytest.mark.parametrize("as_json", [False, True])
def test_r83_one_record_is_one_safe_line(as_json: bool) -> None:
    stream = io.StringIO()
    set_up_logs("info", as_json=as_json, stream=stream)
    logging.getLogger("agentflow_server.access").info("GET %s", HOSTILE, extra={"path": HOSTILE})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert text.endswith("\n")


def test_json_records_carry_their_extras_and_tracebacks() -> None:
    stream = io.StringIO()
    set_up_logs("info", as_json=True, stream=stream)
    try:
        break_with("two\nlines")
    except ValueError:
        logging.getLogger("agentflow_server").exception(
            "failed", extra={"status": 200, "where": Path("x"), "level": "never", "time": 0}
        )
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert record["level"] == "error"
    assert record["message"] == "failed"
    assert record["status"] == 200
    assert record["where"] == "x"
    assert record["time"].endswith("+00:00")
    assert "ValueError: two\nlines" in record["exception"]


def test_a_readable_traceback_keeps_its_lines_and_escapes_them() -> None:
    stream = io.StringIO()
    set_up_logs("info", stream=stream)
    try:
        break_with("red \x1b[31m")
    except ValueError:
        logging.getLogger("agentflow_server").exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == r"ValueError: red \x1b[31m"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, coloured in ((Terminal(), True), (io.StringIO(), False)):
        set_up_logs("info", stream=stream)
        logging.getLogger("agentflow_server").warning("x")
        assert ("\x1b[33m" in stream.getvalue()) is coloured
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    set_up_logs("info", stream=terminal)
    logging.getLogger("agentflow_server").warning("x")
    assert "\x1b" not in terminal.getvalue()


def test_debug_is_for_our_own_records_only() -> None:
    stream = io.StringIO()
    set_up_logs("debug", stream=stream)
    logging.getLogger("agentflow_server.runs").debug("ours")
    logging.getLogger("some.library").debug("theirs")
    logging.getLogger("httpx").info("GET https://x/?token=y")
    assert "ours" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1


def test_a_higher_level_silences_everybody() -> None:
    stream = io.StringIO()
    set_up_logs("error", stream=stream)
    for name in ("agentflow_server", "uvicorn.error", "httpx", "library"):
        logging.getLogger(name).warning("x")
    assert stream.getvalue() == ""


def test_the_banner_says_what_is_served(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = KeyConfig(None, "HS512", SecretStr("hunter2"), "JWT_SECRET_KEY")
    auth = JwtConfig(source=StaticKeys((key,)))
    config = Config(
        path=tmp_path / "agentflow.json",
        folder=tmp_path,
        agents={"a": "m:x", "b": "m:y"},
        auth=(auth,),
        public_url="https://agents.example.com",
    )
    print_banner(config, "http://127.0.0.1:1")
    text = capsys.readouterr().out
    for part in (
        "http://127.0.0.1:1",
        "https://agents.example.com",
        "a (m:x), b (m:y)",
        "JWT, HS512, key from JWT_SECRET_KEY",
        str(config.database_path),
        "http://127.0.0.1:1/docs",
    ):
        assert part in text
    assert "hunter2" not in text
    assert "\x1b" not in text
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_banner(config, "http://127.0.0.1:1")
    assert "\x1b[36m" in terminal.getvalue()


def test_the_summary_names_the_class_and_not_its_options(tmp_path: Path) -> None:
    config = Config(
        path=tmp_path / "x.json",
        folder=tmp_path,
        agents={"a": "m:x"},
        auth=(CustomAuthConfig(path="auth.custom:Mine", options={"key": "hunter2"}),),
    )
    assert summarise(config)["Auth"] == "custom, auth.custom:Mine"
    assert addresses(config, "u") == {"URL": "u", "Docs": "u/docs"}


def test_the_summary_names_every_method_and_no_secret(tmp_path: Path) -> None:
    keys = [
        KeyConfig("new", "ES256", SecretStr("hunter2"), "new.pem"),
        KeyConfig("old", "HS256", SecretStr("hunter2"), "OLD"),
    ]
    url = "https://id.example.com"
    methods: list[tuple[AuthConfig, str]] = [
        (
            JwtConfig(source=StaticKeys(tuple(keys))),
            "JWT, ES256 and HS256, key from new.pem, OLD",
        ),
        (JwtConfig(source=JwksFile(Path("/x.json"))), "JWT, keys from /x.json"),
        (JwtConfig(source=JwksUrl(url)), f"JWT, keys from {url}"),
        (JwtConfig(source=Discovery(), issuer=url), f"JWT, issuer {url}"),
        (
            IntrospectionConfig(url=url, client_id="x", client_secret=SecretStr("hunter2")),
            f"introspection, {url}",
        ),
        (ApiKeyConfig(), "API keys"),
        (NoAuthConfig(), "none: everybody may use this server"),
    ]
    config = Config(
        path=tmp_path / "x.json",
        folder=tmp_path,
        agents={"a": "m:x"},
        auth=tuple(method for method, _ in methods),
    )
    assert summarise(config)["Auth"] == "; ".join(text for _, text in methods)
