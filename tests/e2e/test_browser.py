"""What a real browser does with the server: Swagger's Authorize button, pages of other origins."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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


class Page:
    """A tab, driven through Chromium's DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
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
        self._receive(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """The value of an expression; of a promise, once it has one."""
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """The text of the element, once it is there."""
        return str(self._with(selector, "element.textContent"))

    def click(self, selector: str) -> None:
        self._with(selector, "element.click()")

    def type(self, selector: str, text: str) -> None:
        self._with(selector, "element.focus()")
        self._call("Input.insertText", text=text)

    def _with(self, selector: str, script: str) -> Any:
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
