"""A login on the server's own page, in a browser: authorization code with PKCE (RFC 8252, 7636)."""

import base64
import hashlib
import secrets
import sys
import threading
import time
import webbrowser
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit

from agentflow_server.client import LoginFailed, Token
from agentflow_server.client.credentials import OAuthLogin
from agentflow_server.client.steps import Steps
from agentflow_server.console.logins import obtain
from agentflow_server.console.printable import make_line

_PATH = "/callback"
_PATIENCE_SECONDS = 300.0
_PAGE = "<!doctype html><meta charset=utf-8><title>agentflow</title><p>{}</p>"


@dataclass(frozen=True, eq=False)
class AuthorizationCode(OAuthLogin):
    """A code that the login page has given, good once."""

    code: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str

    @property
    def source(self) -> str:
        return f"{super().source} "  # whose it is, nobody has said yet

    def obtain(self, stored: Token | None) -> Steps[Token]:
        return self._grant(
            "authorization_code",
            code=self.code,
            code_verifier=self.verifier,
            redirect_uri=self.redirect_uri,
        )


def log_in_with_browser(server: str, token_url: str, *, client_id: str) -> Token:
    """Raises LoginFailed."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    with _Listener(state) as listener:
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": listener.url,
            "state": state,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        page = f"{token_url.removesuffix('/token')}/authorize?{urlencode(query)}"
        sys.stderr.write(f"Log in at {page}\n")
        sys.stderr.flush()
        # Some browsers are not left before they are closed.
        threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
        code = listener.wait(_PATIENCE_SECONDS)
    login = AuthorizationCode(
        token_url, client_id=client_id, code=code, verifier=verifier, redirect_uri=listener.url
    )
    return obtain(server, login)


class _Listener:
    """Waits on a free port of this machine for the page to send the browser back."""

    def __init__(self, state: str) -> None:
        self._answer: dict[str, str] = {}
        listener = self

        class Door(BaseHTTPRequestHandler):
            timeout = 5.0

            def do_GET(self) -> None:
                is_ours = listener.take(self.path, state)
                text = "Go back to the terminal." if is_ours else "This is no login of yours."
                self.send_response(200 if is_ours else 400)
                self.send_header("Content-Type", "text/html")
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(_PAGE.format(text).encode())

            def log_message(self, format: str, *args: object) -> None:
                """The code is in the line."""

        self._server = HTTPServer(("127.0.0.1", 0), Door)
        self._server.timeout = 0.2
        self.url = f"http://127.0.0.1:{self._server.server_port}{_PATH}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def take(self, target: str, state: str) -> bool:
        """What another page of the browser sends is not waited for."""
        url = urlsplit(target)
        fields = {name: values[0] for name, values in parse_qs(url.query).items()}
        known = secrets.compare_digest(fields.get("state", "").encode(), state.encode())
        if url.path != _PATH or not known or self._answer:
            return False
        self._answer = fields
        return True

    def wait(self, seconds: float) -> str:
        """The code. Raises LoginFailed."""
        until = time.monotonic() + seconds
        while not self._answer:
            if time.monotonic() > until:
                raise LoginFailed("nobody has logged in in the browser")
            self._server.handle_request()
        if code := self._answer.get("code"):
            return code
        reason = make_line(self._answer.get("error", "no code came back"))
        raise LoginFailed(f"the login page refuses: {reason}", code="refused")
