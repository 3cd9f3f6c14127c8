"""A provider on a real port, and a browser and a client for it."""

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import uvicorn

from agentflow_server.demo import create_provider

REDIRECT_URI = "http://localhost:8000/auth/redirect"
VERIFIER = "a-verifier-of-forty-three-characters-or-more"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()
DEADLINE = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Provider:
    url: str
    clock: Clock


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = create_provider(url, clock=clock)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Provider(url, clock)
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive()


class Browser(httpx2.Client):
    """Keeps the cookies of one person, and follows no redirect by itself."""

    def log_in(self, name: str) -> "Browser":
        assert self.post("/", data={"username": name}).status_code == 303
        return self


@pytest.fixture
def browse(provider: Provider) -> Iterator[Callable[..., Browser]]:
    """`browse("alice")`: a browser in which she has logged in; without a name, a fresh one."""
    opened: list[Browser] = []

    def browse(name: str | None = None) -> Browser:
        opened.append(Browser(base_url=provider.url, timeout=DEADLINE))
        return opened[-1].log_in(name) if name else opened[-1]

    yield browse
    for browser in opened:
        browser.close()


@dataclass
class App:
    """A registered client, doing what an application does."""

    browser: Browser
    id: str
    secret: str
    auth_method: str
    endpoint: httpx2.Client
    asked: dict[str, Any] = field(default_factory=dict)

    def ask(self, **changes: str | None) -> dict[str, str]:
        """The parameters that it sends the user's browser to the provider with."""
        wanted: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": REDIRECT_URI,
            "scope": "openid profile",
            "state": "the state",
            "code_challenge": CHALLENGE.rstrip("="),
            "code_challenge_method": "S256",
        } | changes
        return {name: value for name, value in wanted.items() if value is not None}

    def authorize(
        self, browser: Browser, decision: str = "allow", **changes: str | None
    ) -> dict[str, str]:
        """What the provider sends it, after the user has decided."""
        answer = browser.post(
            "/oauth/authorize", params=self.ask(**changes), data={"decision": decision}
        )
        return came_back(answer)

    def post(self, path: str, form: dict[str, str]) -> httpx2.Response:
        """With its credentials, as it was registered to show them."""
        if self.auth_method == "client_secret_basic":
            return self.endpoint.post(path, data=form, auth=(self.id, self.secret))
        own = {"client_id": self.id}
        if self.auth_method == "client_secret_post":
            own["client_secret"] = self.secret
        return self.endpoint.post(path, data=own | form)

    def exchange(self, code: str, **changes: str | None) -> httpx2.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
        } | changes
        return self.post("/oauth/token", {k: v for k, v in form.items() if v is not None})

    def refresh(self, token: str, **more: str) -> httpx2.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token} | more
        return self.post("/oauth/token", form)

    def connect(self, browser: Browser, **changes: str | None) -> dict[str, Any]:
        """The tokens, after the user has allowed it."""
        answer = self.exchange(self.authorize(browser, **changes)["code"])
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def me(self, access_token: str) -> httpx2.Response:
        return self.endpoint.get("/api/me", headers={"Authorization": f"Bearer {access_token}"})


@pytest.fixture
def register(browse: Callable[..., Browser]) -> Callable[..., App]:
    """Fill in the form, and read what the home page then shows."""

    def register(owner: str = "the owner", **changes: str) -> App:
        browser = browse(owner)
        before = set(find_clients(browser.get("/").text))
        answer = browser.post("/create_client", data=fill_in(**changes))
        assert answer.status_code == 303, answer.text
        found = find_clients(browser.get("/").text)
        (added,) = set(found) - before
        method = fill_in(**changes)["token_endpoint_auth_method"]
        return App(browser, added, found[added], method, browse())

    return register


@pytest.fixture
def read_form() -> Callable[..., dict[str, str]]:
    return fill_in


@pytest.fixture
def read_redirect() -> Callable[[httpx2.Response], dict[str, str]]:
    return came_back


def fill_in(**changes: str) -> dict[str, str]:
    return {
        "client_name": "test",
        "client_uri": "https://test.com",
        "scope": "openid profile email",
        "redirect_uri": REDIRECT_URI,
        "grant_type": "authorization_code\r\nrefresh_token",
        "response_type": "code",
        "token_endpoint_auth_method": "client_secret_post",
    } | changes


def find_clients(html: str) -> dict[str, str]:
    """The id and the secret of each."""
    ids = re.findall(r'class="client-id">([^<]+)<', html)
    secrets = re.findall(r'class="client-secret">([^<]+)<', html)
    return dict(zip(ids, map(unescape, secrets), strict=True))


def came_back(answer: httpx2.Response) -> dict[str, str]:
    """What the application is told in the URL that the browser is sent to."""
    assert answer.status_code == 302, answer.text
    location = answer.headers["location"]
    assert location.startswith(f"{REDIRECT_URI}?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
