"""What docs/websocket.md says works as printed, also in a real browser."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from agentflow_server.web import errors as web_errors

PAGE = Path(__file__).parents[2] / "docs" / "websocket.md"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-port=0",
]  # fmt: skip
DEADLINE = 60.0


def block(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[1]


async def test_the_python_client_works_as_printed(serve, token, tmp_path):
    server = await serve()
    script = tmp_path / "listen.py"
    script.write_text(block("python"), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        env={**os.environ, "URL": server.url, "TOKEN": token("alice")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaints = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert (said.decode(), complaints.decode()) == ("alice: Hello\n", "")


def test_every_close_code_of_ours_is_explained():
    codes = set(map(int, re.findall(r"^\| (\d{4}) \|", PAGE.read_text(encoding="utf-8"), re.M)))
    never_closes = {4409, 4422}  # conflicts and invalid commands are answered
    assert set(web_errors.CLOSE_CODES.values()) - never_closes <= codes


class Tab:
    """A page in Chromium, driven through its DevTools protocol."""

    def __init__(self, socket):
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session = {}

    async def open(self, url):
        target = await self._call("Target.createTarget", url="about:blank")
        attached = await self._call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = {"sessionId": attached["sessionId"]}
        await self._call("Page.enable")
        await self._call("Page.navigate", url=url)
        await self._receive(lambda message: message.get("method") == "Page.loadEventFired")

    async def evaluate(self, script):
        """What the promise becomes, or why it is none."""
        answer = await self._call(
            "Runtime.evaluate",
            expression=f"({script}).catch(String)",
            awaitPromise=True,
            returnByValue=True,
        )
        return answer["result"].get("value")

    async def _call(self, method, **params):
        number = next(self._numbers)
        call = {"id": number, "method": method, "params": params, **self._session}
        await self._socket.send(json.dumps(call))
        answer = await self._receive(lambda message: message.get("id") == number)
        assert "error" not in answer, answer
        return answer["result"]

    async def _receive(self, is_wanted):
        async with asyncio.timeout(DEADLINE):
            while not is_wanted(message := json.loads(await self._socket.recv())):
                pass
        return message


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", "about:blank",
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    said = b"DevTools listening on "
    try:
        async with asyncio.timeout(DEADLINE):
            while not (line := await process.stderr.readline()).startswith(said):
                assert line, "Chromium did not start"
        reading = asyncio.create_task(process.stderr.read())
        address = line.removeprefix(said).decode().strip()
        async with connect(address, max_size=None, proxy=None) as socket:
            yield Tab(socket)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    await reading


class _Site(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(
            b'<!doctype html><link rel="icon" href="data:,"><script>%s</script>'
            % block("js").encode()
        )

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    """The address of a page of another origin, with the example in it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_r77_a_listed_page_in_a_browser_talks_with_a_ticket(serve, token, tab, site):
    server = await serve(cors={"allow_origins": [site]})
    await tab.open(site)
    call = f"talk({server.url!r}, {token('alice')!r}, 'Hello')"
    assert await tab.evaluate(call) == "alice: Hello"


async def test_r77_any_other_page_in_a_browser_cannot_even_connect(serve, token, tab, site):
    server = await serve()
    await tab.open(site)
    ticket, thread_id = await server.new_ticket(), await server.new_thread()
    address = f"{server.url.replace('http', 'ws', 1)}/threads/{thread_id}/ws"
    script = f"""new Promise((done, fail) => {{
        const socket = new WebSocket({address!r}, ["agentflow", "ticket.{ticket}"]);
        socket.onopen = () => done("open");
        socket.onclose = event => done("closed " + event.code);
    }})"""
    assert await tab.evaluate(script) == "closed 1006"
    line = await server.dial(thread_id)
    assert (await line.ask("auth", ticket=ticket))["type"] == "ready", "it was not even looked at"


async def test_a_page_learns_that_its_token_has_expired(serve, tab, site, token):
    import time

    server = await serve(cors={"allow_origins": [site]})
    await tab.open(site)
    call = f"talk({server.url!r}, {token('alice', exp=time.time() + 3)!r}, 'wait')"
    assert await tab.evaluate(call) == "4401 token expired"
