"""Real receivers on 127.0.0.1, a real store, and runs that have ended."""

import asyncio
import json
import socket
import ssl
import textwrap
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from agentflow_server import create_app
from agentflow_server.config import WebhooksConfig
from agentflow_server.models import Message, NewRun, RunOutcome
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_data import make_id
from agentflow_server.webhooks import WebhookSender, backoff

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw1DDiGRPXvnA="
OLD_SECRET = "whsec_c2VjcmV0IG9mIGFuIG9sZGVyIHRpbWUgdGhhdCBoYXMgcGFzc2Vk"


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, *headers: str, body: bytes = b"ok") -> Reply:
    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return send


async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Until the other side has gone."""
    await reader.read()


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Headers without end, so that something arrives all the time."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"X: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@dataclass
class Receiver:
    """Answers with `replies` in turn, and with 200 after them."""

    replies: list[Reply] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    port: int = 0
    names: list[str | None] = field(default_factory=list)
    """That clients have asked for in TLS."""
    at_once: int = 0
    most_at_once: int = 0
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def wait_for(self, number: int) -> list[Received]:
        async with asyncio.timeout(20), self._more:
            await self._more.wait_for(lambda: len(self.received) >= number)
        return self.received

    async def wait_idle(self) -> None:
        async with asyncio.timeout(20), self._more:
            await self._more.wait_for(lambda: self.at_once == 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = [line.split(": ", 1) for line in head[1:] if line]
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers["content-length"]))
            reply = self.replies.pop(0) if self.replies else answer(200)
            async with self._more:
                self.received.append(Received(head[0].split(" ")[1], headers, body))
                self._more.notify_all()
            await reply(reader, writer)
        except (OSError, EOFError):
            pass  # the client has gone
        finally:
            writer.close()
            self.at_once -= 1
            async with self._more:
                self._more.notify_all()


@asynccontextmanager
async def _listening(receiver: Receiver, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Awaitable[Receiver]]]:
    """`receiver = await listen(reply, reply)`; `context=` for TLS."""
    async with AsyncExitStack() as stack:

        async def start(*replies: Reply, context: ssl.SSLContext | None = None) -> Receiver:
            receiver = Receiver(list(replies))
            if context is not None:
                context.sni_callback = lambda _, name, __: receiver.names.append(name)
            await stack.enter_async_context(_listening(receiver, context))
            return receiver

        yield start


@pytest.fixture
def reply() -> Any:
    """Ways to answer: `reply.answer(500)`, `reply.never`, `reply.drip`, `reply.drip_body`."""

    class Replies:
        pass

    Replies.answer = staticmethod(answer)  # type: ignore[attr-defined]
    Replies.never = staticmethod(never)  # type: ignore[attr-defined]
    Replies.drip = staticmethod(drip)  # type: ignore[attr-defined]
    Replies.drip_body = staticmethod(drip_body)  # type: ignore[attr-defined]
    return Replies


def make_config(**changes: Any) -> WebhooksConfig:
    values: dict[str, Any] = {
        "secret": ["WEBHOOK_SECRET"],
        "keys": (SecretStr(SECRET),),
        "allow_private": True,
        "timeout": 10.0,
    }
    return WebhooksConfig(**values | changes)


@pytest.fixture
def config() -> Callable[..., WebhooksConfig]:
    """One that allows this machine, unless it is told otherwise."""
    return make_config


@pytest.fixture
def secrets() -> tuple[str, str]:
    """The one of `config`, and an older one."""
    return SECRET, OLD_SECRET


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed deliveries come back at once."""
    monkeypatch.setattr(backoff, "SCHEDULE", (0.01,))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "a.db") as opened:
        yield opened


@pytest.fixture
def end_run() -> Callable[..., Awaitable[NewRun]]:
    """`new = await end_run(store, url)`: a run with that webhook has ended."""

    async def run(
        store: Any,
        url: str,
        outcome: RunOutcome | None = None,
        said: str = "Hi",
        **changes: Any,
    ) -> NewRun:
        thread_id, run_id = make_id(), make_id()
        await store.create_thread("alice", thread_id, metadata={})
        new = NewRun(
            run_id=run_id,
            thread_id=thread_id,
            agent="echo",
            message_id=make_id(),
            content="Hello",
            metadata={},
            claims={"user_id": "alice", "email": "alice@example.com"},
            config={"tags": ["secret-tag"]},
            webhook=url,
        )
        started = await store.start_run("alice", new)
        message = Message(
            message_id=make_id(),
            thread_id=thread_id,
            run_id=run_id,
            role="assistant",
            content=said,
            created_at=datetime.now(UTC),
            metadata={},
        )
        await store.finish_run(
            started.active, outcome or RunOutcome("success"), [message], [], claim_next=False
        )
        return new

    return run


@pytest.fixture
def send() -> Callable[..., Any]:
    """`async with send(store, …) as sender`."""

    def make(store: Any, config: WebhooksConfig | None = None, **changes: Any) -> WebhookSender:
        return WebhookSender(store, config or make_config(), **changes)

    return make


class Counts(list[str]):
    """What came of each attempt, as it is stored."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, result: str) -> None:
        self.append(result)
        self._more.set()

    async def wait_for(self, number: int) -> None:
        async with asyncio.timeout(20):
            while len(self) < number:
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def counts() -> Counts:
    """`send(store, count=counts)`, then `await counts.wait_for(1)`."""
    return Counts()


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ssl.SSLContext]:
    """The TLS of a server with a certificate for `name` that clients here believe."""

    def make(name: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        now = datetime.now(UTC)
        try:
            alternative: x509.GeneralName = x509.IPAddress(ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = tmp_path / f"{make_id()}.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    return make


@pytest.fixture
async def serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[httpx2.AsyncClient]]]:
    """`client = await serve(source, webhooks={…})`: a client of a server with that agent."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    async with AsyncExitStack() as stack:

        async def start(source: str, **settings: Any) -> httpx2.AsyncClient:
            name = f"user_{uuid.uuid4().hex}"
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
            path = tmp_path / f"{name}.json"
            database = f"sqlite:///{name}.db"
            written = {"agent": f"{name}:app", "auth": None, "database": database, **settings}
            path.write_text(json.dumps(written))
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            config = uvicorn.Config(
                create_app(path), log_config=None, lifespan="on", timeout_graceful_shutdown=5
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))

            async def stop() -> None:
                server.should_exit = True
                await serving

            stack.push_async_callback(stop)
            client = httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=15
            )
            return await stack.enter_async_context(client)

        yield start
