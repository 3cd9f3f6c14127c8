"""What a real browser does with the server: Swagger's Authorize button, pages of other origins."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import jwt
import pytest
from websockets.sync.client import ClientConnection, connect

DEADLINE = 60.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-port=0",
]  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


class PageLeft(Exception):
    """The browser went to another page meanwhile."""


class Page:
    """A tab, driven through Chromium's DevTools protocol."""

    def __init__(self, socket: ClientConnection, target: str | None = None) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        if target is None:
            target = str(self._call("Target.createTarget", url="about:blank")["targetId"])
        self._target = target
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._call("Page.enable")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        answer = self._receive(lambda message: message.get("id") == number)
        if answer.get("error", {}).get("code") == -32000:
            raise PageLeft(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE
        while True:
            message = json.loads(self._socket.recv(timeout=deadline - time.monotonic()))
            if is_wanted(message):
                return message  # type: ignore[no-any-return]

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        self.wait_for_load()

    def wait_for_popup(self) -> str:
        """The target of the window that this page has opened, or is about to."""
        # It tells about those that are there as well, before it answers.
        message = {"id": next(self._numbers), "method": "Target.setDiscoverTargets"}
        self._socket.send(json.dumps({**message, "params": {"discover": True}}))

        def is_popup(message: dict[str, Any]) -> bool:
            target = message.get("params", {}).get("targetInfo", {})
            return message.get("method") == "Target.targetCreated" and (
                target.get("openerId") == self._target
            )

        return str(self._receive(is_popup)["params"]["targetInfo"]["targetId"])

    def wait_for_load(self) -> None:
        self._receive(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """The value of an expression; of a promise, once it has one."""
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True,
            userGesture=True,
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """The text of the element, once it is there."""
        return str(self._with(selector, "element.textContent"))

    def click(self, selector: str) -> None:
        self.text(selector)
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        self._with(selector, "element.focus()")
        self._call("Input.insertText", text=text)

    def _with(self, selector: str, script: str) -> Any:
        while True:
            try:
                return self._once_there(selector, script)
            except PageLeft:
                continue

    def _once_there(self, selector: str, script: str) -> Any:
        return self.evaluate(f"""new Promise(done => {{
            const look = () => {{
                const element = document.querySelector({json.dumps(selector)});
                if (!element) return;
                changes.disconnect();
                done({script});
            }};
            const changes = new MutationObserver(look);
            changes.observe(document, {{childList: true, subtree: true, attributes: true}});
            look();
        }})""")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a browser that is told what to do."""
    assert CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    process = subprocess.Popen(
        [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        env={**os.environ, "HOME": str(profile)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr
    said = "DevTools listening on "
    silence = threading.Timer(DEADLINE, process.kill)
    silence.start()
    address = next((line for line in process.stderr if line.startswith(said)), None)
    silence.cancel()
    # Whatever else it says is read, so that it can go on.
    reader = threading.Thread(target=process.stderr.read, daemon=True)
    reader.start()
    try:
        assert address, "Chromium did not start"
        yield address.removeprefix(said).strip()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        process.stderr.close()
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    with connect(chromium, max_size=None, proxy=None) as socket:
        yield Page(socket)


BACKEND = """
from agentflow_server import BaseAuth

class Auth(BaseAuth):
    def authenticate(self, res, credential):
        return {"user_id": "alice"} if credential.credentials == "key-of-alice" else None
"""
LIST_THREADS = "[id^=operations-threads-list_threads]"

# Swagger shows an operation a moment before it knows how to execute it; nobody clicks that fast.
OPERATION_IS_READY = """new Promise(done => {
    const look = () => {
        if (ui.specSelectors.specResolvedSubtree(["paths", "/threads", "get"])) done();
    };
    ui.getStore().subscribe(look);
    look();
})"""


@pytest.mark.parametrize("method", ["jwt", "custom"])
def test_swaggers_authorize_button_lets_one_try_the_api(method, page, write, start, secret):
    if method == "jwt":
        server = start(write({}, auth="jwt"), JWT_SECRET_KEY=secret)
        token = jwt.encode({"user_id": "alice", "exp": 4102444800}, secret, "HS256")
    else:
        auth = {"method": "custom", "path": "doors:Auth"}
        server = start(write({"doors.py": BACKEND}, auth=auth))
        token = "key-of-alice"

    page.open(f"{server.url}/docs")
    page.click(f"{LIST_THREADS} .opblock-summary-control")
    page.evaluate(OPERATION_IS_READY)
    page.click(f"{LIST_THREADS} .execute")
    status = f"{LIST_THREADS} .live-responses-table tbody .response-col_status"
    assert page.text(status).startswith("401")
    page.click(f"{LIST_THREADS} .btn-clear")

    page.click(".auth-wrapper .authorize")
    page.type(".auth-container input", token)
    page.click(".auth-btn-wrapper .authorize")
    page.click(".auth-btn-wrapper .btn-done")
    page.click(f"{LIST_THREADS} .execute")
    assert page.text(status).startswith("200")
    assert '"data": []' in page.text(f"{LIST_THREADS} .live-responses-table .highlight-code")


# `outcome` is what the snippet logs, or why it fails.
FRAME = """<!doctype html><link rel="icon" href="data:,"><script>
const outcome = new Promise(done => {
  console.log = data => done(JSON.stringify(data));
  addEventListener("unhandledrejection", event => done(String(event.reason)));
});
</script>
<script>SNIPPET</script>"""


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.server.html.encode())  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    """Another origin: its port is another one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run_snippet(page: Page, site: Any, secret: str) -> Callable[[str], str]:
    def run_snippet(url: str) -> str:
        """What the guide's JavaScript logs in a page of the site."""
        file = Path(__file__).parent / "guide" / "send_message.js.txt"
        snippet = file.read_text(encoding="utf-8")
        token = jwt.encode({"user_id": "alice", "exp": 4102444800}, secret, "HS256")
        snippet = snippet.replace("http://localhost:8000", url)
        snippet = snippet.replace("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...", token)
        site.html = FRAME.replace("SNIPPET", snippet)
        page.open(f"http://127.0.0.1:{site.server_port}/")
        return str(page.evaluate("outcome"))

    return run_snippet


def test_a_page_of_another_origin_may_call_once_cors_allows_it(
    run_snippet, site, write, start, secret
):
    cors = {"allow_origins": [f"http://127.0.0.1:{site.server_port}"]}
    server = start(write({}, auth="jwt", cors=cors), JWT_SECRET_KEY=secret)
    assert json.loads(run_snippet(server.url))["message"]["content"] == "alice: Hello, AI!"


def test_a_page_of_another_origin_may_not_call_before(run_snippet, write, start, secret):
    server = start(write({}, auth="jwt"), JWT_SECRET_KEY=secret)
    assert run_snippet(server.url) == "TypeError: Failed to fetch"


PASSWORD = "tea kettle sings at noon"
STATUS = f"{LIST_THREADS} .live-responses-table tbody .response-col_status"


@pytest.fixture
def start_with_alice(write, start, environment) -> Callable[..., Any]:
    """A server that logs users in, and knows alice."""

    def start_with_alice(**settings: Any) -> Any:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = write({}, auth=..., public_url=f"http://127.0.0.1:{port}", **settings)
        subprocess.run(
            [sys.executable, "-m", "agentflow_server", "users", "add", "alice", "--password-stdin"],
            cwd=folder, env=environment(), input=PASSWORD, text=True, check=True,
            capture_output=True, timeout=DEADLINE,
        )  # fmt: skip
        return start(folder, "--port", str(port))

    return start_with_alice


def list_threads_in_swagger(page: Page) -> str:
    """The status of the answer."""
    page.click(f"{LIST_THREADS} .opblock-summary-control")
    page.evaluate(OPERATION_IS_READY)
    page.click(f"{LIST_THREADS} .execute")
    return page.text(STATUS)


def test_swaggers_authorize_dialog_logs_in_with_username_and_password(page, start_with_alice):
    server = start_with_alice(token_server={"password_grant": True})
    page.open(f"{server.url}/docs")
    page.click(".auth-wrapper .authorize")
    page.type("#oauth_username", "alice")
    page.type("#oauth_password", PASSWORD)
    page.click(".auth-btn-wrapper .authorize")
    page.text(".auth-btn-wrapper .btn-done")
    page.text(".auth-container h6")  # "Authorized"
    page.click(".auth-btn-wrapper .btn-done")
    assert list_threads_in_swagger(page).startswith("200")


def log_in(page: Page) -> None:
    page.type("#username", "alice")
    page.type("#password", PASSWORD)
    page.click("button")


def test_swaggers_authorize_dialog_logs_in_on_the_login_page(page, chromium, start_with_alice):
    server = start_with_alice(token_server={})
    page.open(f"{server.url}/docs")
    page.click(".auth-wrapper .authorize")
    page.click(".auth-btn-wrapper .authorize")
    with connect(chromium, max_size=None, proxy=None) as socket:
        popup = Page(socket, page.wait_for_popup())
        log_in(popup)
        page.text(".auth-container h6")  # "Authorized"
    page.click(".auth-btn-wrapper .btn-done")
    assert list_threads_in_swagger(page).startswith("200")


def test_the_login_page_sends_a_browser_back_to_another_origin(page, site, start_with_alice):
    server = start_with_alice(token_server={})
    site.html = FRAME.replace("SNIPPET", "console.log(location.search)")
    request = {
        "response_type": "code", "client_id": "agentflow", "state": "s", "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
        "redirect_uri": f"http://127.0.0.1:{site.server_port}/callback",
    }  # fmt: skip
    page.open(f"{server.url}/authorize?{urlencode(request)}")
    page.type("#password", "not this one")
    page.type("#username", "alice")
    page.click("button")
    page.wait_for_load()
    assert page.text("[role=alert]") == "The username, the password or the code is wrong"
    page.type("#password", PASSWORD)
    page.click("button")
    page.wait_for_load()
    found = parse_qs(str(page.evaluate("outcome")).strip('"?'))
    assert found.keys() == {"code", "state", "iss"}
    assert found["iss"] == [server.url]
