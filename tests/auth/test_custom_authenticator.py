"""R45 to R48: whatever the user's backend does, nobody gets in by accident."""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from fastapi import HTTPException, Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException as StarletteHTTPException

from agentflow_server.auth.custom import CustomAuth
from agentflow_server.errors import AuthUnavailable, ConfigError, NotAuthenticated
from agentflow_server.interfaces import BaseAuth
from agentflow_server.models import ANONYMOUS, Principal

REQUEST = HTTPConnection({"type": "http", "headers": [(b"x-tenant", b"shop")]})
TOKEN = "s3cr3t-t0ken.with-parts:123456"


class Saying(BaseAuth):
    """Answers with what the function it is given returns."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer

    def authenticate(self, res: Response, credential: HTTPAuthorizationCredentials) -> Any:
        return self.answer(credential.credentials)


class SayingLater(Saying):
    async def authenticate(  # type: ignore[override]
        self, res: Response, credential: HTTPAuthorizationCredentials
    ) -> Any:
        await asyncio.sleep(0)
        return self.answer(credential.credentials)


KINDS = pytest.mark.parametrize("kind", [Saying, SayingLater])


async def ask(
    backend: BaseAuth | CustomAuth, token: str | None = TOKEN, response: Response | None = None
) -> Principal:
    auth = backend if isinstance(backend, CustomAuth) else CustomAuth(backend)
    bearer = None
    if token is not None:
        bearer = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
    return await auth.authenticate(REQUEST, response or Response(), bearer)


@KINDS
async def test_the_dict_becomes_the_principal(kind: type[Saying]) -> None:
    principal = await ask(kind(lambda _: {"user_id": "alice", "roles": ["admin"]}))
    assert principal == Principal(
        "alice",
        {"user_id": "alice", "roles": ["admin"]},
        roles=frozenset({"admin"}),
        method="custom",
    )


@KINDS
async def test_r47_an_empty_dict_means_anonymous(kind: type[Saying]) -> None:
    principal = await ask(kind(lambda _: {}))
    assert principal.id == ANONYMOUS
    assert principal.is_anonymous
    assert principal.claims == {}


@KINDS
async def test_r47_none_is_a_refusal(kind: type[Saying], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NotAuthenticated, match=r"^Could not validate credentials$") as caught:
        await ask(kind(lambda _: None))
    assert caught.value.reason == "refused"
    assert caught.value.token_sent
    assert not caplog.records


class Colour(Enum):
    RED = object()


def endless() -> dict[str, Any]:
    claims: dict[str, Any] = {"user_id": "alice"}
    claims["self"] = claims
    return claims


UNUSABLE: dict[str, Any] = {
    "False": False,
    "True": True,
    "a blank text": "",
    "a text": "alice",
    "a list": [],
    "a list of pairs": [("user_id", "alice")],
    "zero": 0,
    "no user_id": {"sub": "alice"},
    "user_id None": {"user_id": None},
    "the anonymous owner": {"user_id": ""},
    "a blank user_id": {"user_id": "  "},
    "user_id True": {"user_id": True},
    "user_id False": {"user_id": False},
    "a float": {"user_id": 1.0},
    "bytes": {"user_id": b"alice"},
    "a list as user_id": {"user_id": ["alice"]},
    "a long user_id": {"user_id": "a" * 257},
    "a huge integer": {"user_id": 10**300},
    "a line break": {"user_id": "alice\nadmin"},
    "an object": {"user_id": "alice", "x": object()},
    "an enum of objects": {"user_id": "alice", "x": Colour.RED},
    "NaN": {"user_id": "alice", "x": float("nan")},
    "infinity": {"user_id": "alice", "x": float("inf")},
    "a surrogate": {"user_id": "alice", "x": "\ud800"},
    "a surrogate as user_id": {"user_id": "\ud800"},
    "NUL": {"user_id": "alice", "x": "\0"},
    "itself": endless(),
    "two keys of one name": {"user_id": "alice", 1: "a", "1": "b"},
    "a second user_id": {"user_id": "alice", type("K", (str,), {})("user_id "): 1, 2: {3}, "2": 4},
}


@KINDS
@pytest.mark.parametrize("name", UNUSABLE)
async def test_r47_an_unusable_answer_is_a_refusal_and_an_error_in_the_log(
    kind: type[Saying], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NotAuthenticated, match=r"^Could not validate credentials$") as caught:
        await ask(kind(lambda _: UNUSABLE[name]))
    assert caught.value.reason == "unusable_answer"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert kind.__name__ in caplog.text


async def test_r47_a_coroutine_nobody_awaited_is_a_refusal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def later() -> dict[str, Any]:
        return {"user_id": "alice"}

    with pytest.raises(NotAuthenticated):
        await ask(Saying(lambda _: later()))
    assert "got coroutine" in caplog.text


@dataclass
class Profile:
    email: str


@pytest.mark.parametrize(
    ("user_id", "expected"),
    [(7, "7"), (UUID(int=7), str(UUID(int=7))), ("al\u00efce", "al\u00efce")],
)
async def test_r22_integers_and_uuids_become_text(user_id: Any, expected: str) -> None:
    principal = await ask(Saying(lambda _: {"user_id": user_id}))
    assert principal.id == expected
    assert principal.claims == {"user_id": expected}
    assert type(principal.id) is str


async def test_claims_become_plain_json() -> None:
    principal = await ask(
        Saying(
            lambda _: {
                "user_id": "alice",
                "since": datetime(2026, 1, 2, tzinfo=UTC),
                "id": UUID(int=1),
                "profile": Profile("alice@example.com"),
                "groups": ("a", "b"),
                5: None,
            }
        )
    )
    assert principal.claims == {
        "user_id": "alice",
        "since": "2026-01-02T00:00:00Z",
        "id": str(UUID(int=1)),
        "profile": {"email": "alice@example.com"},
        "groups": ["a", "b"],
        "5": None,
    }


@KINDS
async def test_r48_a_backend_that_changes_its_dict_later_changes_nothing(
    kind: type[Saying],
) -> None:
    mine: dict[str, Any] = {"user_id": "alice", "roles": ["user"], "org": {"id": 1}}
    principal = await ask(kind(lambda _: mine))
    mine["user_id"] = "mallory"
    mine["roles"].append("admin")
    mine["org"]["id"] = 2
    assert principal.id == "alice"
    assert principal.claims == {"user_id": "alice", "roles": ["user"], "org": {"id": 1}}


@KINDS
async def test_r48_no_claim_crosses_among_200_users_and_5000_requests(kind: type[Saying]) -> None:
    shared: dict[str, Any] = {}

    def answer(token: str) -> dict[str, Any]:
        shared["last"] = token
        return {"user_id": token, "roles": [f"role of {token}"]}

    auth = CustomAuth(kind(answer), timeout=60)
    choose = random.Random(1)
    tokens = [f"user-{choose.randrange(200)}" for _ in range(5000)]

    async def work() -> None:
        while tokens:
            token = tokens.pop()
            principal = await ask(auth, token)
            assert principal.id == token
            assert principal.claims["roles"] == [f"role of {token}"]

    await asyncio.gather(*(work() for _ in range(200)))
    assert shared["last"].startswith("user-")


def fail(_: str) -> Any:
    raise LookupError(f"no row for {TOKEN}, nor for {TOKEN.split(':', maxsplit=1)[0]!r}")


@KINDS
async def test_r45_an_exception_is_a_503_logged_without_the_credential(
    kind: type[Saying], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AuthUnavailable, match="temporarily unavailable") as caught:
        await ask(kind(fail))
    assert caught.value.reason == "backend_failed"
    assert caught.value.retry_after > 0
    assert "LookupError: no row for [credential]" in caplog.text
    assert "in fail" in caplog.text, "the traceback leads to the user's line"
    for part in (TOKEN, "s3cr3t-t0ken", "with-parts", "123456"):
        assert part not in caplog.text
    assert caught.value.__suppress_context__


def exit_(_: str) -> Any:
    raise SystemExit(1)


def stop(_: str) -> Any:
    raise StopIteration


def chain(_: str) -> Any:
    try:
        return fail(_)
    except LookupError as exc:
        raise ValueError("user") from exc


def too_slow(_: str) -> Any:
    raise TimeoutError("the database is slow")


@KINDS
@pytest.mark.parametrize("reaction", [exit_, stop, chain, too_slow])
async def test_r45_whatever_it_raises_is_a_503(
    kind: type[Saying], reaction: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AuthUnavailable) as caught:
        await ask(kind(reaction))
    assert caught.value.reason == "backend_failed"
    assert reaction.__name__ in caplog.text
    assert TOKEN not in caplog.text


@KINDS
@pytest.mark.parametrize("family", [HTTPException, StarletteHTTPException])
async def test_an_http_exception_passes_through(
    kind: type[Saying], family: type[StarletteHTTPException], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: str) -> Any:
        raise family(403, "Not on weekends")

    with pytest.raises(StarletteHTTPException) as caught:
        await ask(kind(refuse))
    assert (caught.value.status_code, caught.value.detail) == (403, "Not on weekends")
    assert not caplog.records


class Headers(BaseAuth):
    def authenticate(self, res: Response, credential: HTTPAuthorizationCredentials) -> Any:
        res.headers["X-User"] = "alice"
        res.set_cookie("seen", "1")
        res.set_cookie("theme", "dark")
        res.headers["Content-Length"] = "5"
        res.headers["Content-Type"] = "text/html"
        if credential.credentials == "no":
            raise HTTPException(401, "no")
        return None if credential.credentials == "none" else {"user_id": "alice"}


@pytest.mark.parametrize("token", ["yes", "no", "none"])
async def test_headers_and_cookies_reach_the_client(token: str) -> None:
    response = Response()
    try:
        await ask(Headers(), token, response)
    except (HTTPException, NotAuthenticated):
        assert token != "yes"
    assert response.headers["x-user"] == "alice"
    assert len(response.headers.getlist("set-cookie")) == 2
    assert response.headers.getlist("content-length") == ["0"]
    assert "content-type" not in response.headers


class WithRequest(BaseAuth):
    def authenticate(  # type: ignore[override]
        self, request: HTTPConnection, res: Response, credential: Any
    ) -> Any:
        return {"user_id": request.headers["x-tenant"]}


class WithRequestLater(BaseAuth):
    async def authenticate(  # type: ignore[override]
        self, request: HTTPConnection, res: Response, credential: Any
    ) -> Any:
        return {"user_id": request.headers["x-tenant"]}


@pytest.mark.parametrize("kind", [WithRequest, WithRequestLater])
async def test_the_three_argument_form_sees_the_request(kind: type[BaseAuth]) -> None:
    assert (await ask(kind())).id == "shop"


async def test_r45_what_ends_a_thread_ends_no_more_than_that() -> None:
    def cancel(_: str) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(AuthUnavailable):
        await ask(Saying(cancel))


async def test_a_very_short_credential_does_not_garble_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(AuthUnavailable):
        await ask(Saying(fail), "in")
    assert ", in fail\n" in caplog.text


async def test_without_a_credential_the_backend_is_not_asked() -> None:
    def never(_: str) -> Any:
        raise AssertionError("asked")

    auth = CustomAuth(Saying(never))
    assert auth.credential_required
    assert auth.security_scheme == {"type": "http", "scheme": "bearer"}
    with pytest.raises(NotAuthenticated, match=r"^Not authenticated$") as caught:
        await ask(auth, None)
    assert not caught.value.token_sent


class Cookie(BaseAuth):
    credential_required = False

    def authenticate(self, res: Response, credential: Any) -> Any:
        return None if credential is None else {"user_id": "alice"}


async def test_a_backend_may_ask_to_be_asked_without_a_credential() -> None:
    auth = CustomAuth(Cookie())
    assert not auth.credential_required
    assert (await ask(auth)).id == "alice"
    with pytest.raises(NotAuthenticated, match=r"^Not authenticated$") as caught:
        await ask(auth, None)
    assert caught.value.reason == "refused"
    assert not caught.value.token_sent


class CookieThatFails(Cookie):
    def authenticate(self, res: Response, credential: Any) -> Any:
        raise OSError("no disk")


async def test_r45_a_failure_without_a_credential_is_logged_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(AuthUnavailable):
        await ask(CookieThatFails(), None)
    assert "OSError: no disk" in caplog.text


class Closing(Saying):
    """Notes how it was closed; `reaction` is what closing does."""

    def __init__(self, reaction: Callable[[], Any] = list) -> None:
        super().__init__(lambda _: {"user_id": "alice"})
        self.reaction = reaction
        self.closed: list[str] = []

    def close(self) -> None:
        self.closed.append(threading.current_thread().name)
        self.reaction()


class ClosingLater(Closing):
    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().close()


async def test_a_backend_is_closed_with_the_server() -> None:
    plain, later = Closing(), ClosingLater()
    for backend in (plain, later, Saying(fail)):
        await CustomAuth(backend).close()
    assert plain.closed == ["agentflow-call"], "a slow one holds up nobody"
    assert later.closed == [threading.current_thread().name]


@pytest.mark.parametrize("kind", [Closing, ClosingLater])
async def test_a_backend_that_cannot_be_closed_keeps_nobody_from_stopping(
    kind: type[Closing], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise RuntimeError("pool is gone")

    await CustomAuth(kind(refuse)).close()
    assert f"{kind.__name__}.close failed" in caplog.text
    assert "RuntimeError: pool is gone" in caplog.text


async def test_a_backend_that_hangs_when_closed_is_left_behind(
    gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    await CustomAuth(Closing(gate.wait), timeout=0.05).close()
    assert "Closing.close failed" in caplog.text


@pytest.mark.parametrize("close", [7, lambda _: None])
def test_r7_a_close_of_another_form_is_refused(close: Any) -> None:
    backend = Saying(fail)
    backend.close = close  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"^auth\.path: close must be"):
        CustomAuth(backend)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Hung backends wait for it; it opens when the test is over."""
    event = threading.Event()
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name == "agentflow-auth":
            thread.join(timeout=10)


class Hanging(BaseAuth):
    """Hangs for everybody but alice, then writes to its response."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.entered = threading.Semaphore(0)
        self.left = threading.Semaphore(0)

    def authenticate(self, res: Response, credential: HTTPAuthorizationCredentials) -> Any:
        if credential.credentials != "alice":
            self.entered.release()
            self.gate.wait()
            res.headers["X-Late"] = "1"
            self.left.release()
        return {"user_id": credential.credentials}


async def test_r46_a_hung_backend_is_a_503_with_retry_after(
    gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Hanging(gate)
    response = Response()
    with pytest.raises(AuthUnavailable) as caught:
        await ask(CustomAuth(backend, timeout=0.05), "bob", response)
    assert caught.value.reason == "backend_timeout"
    assert caught.value.retry_after > 0
    assert "no answer within 0.05 s" in caplog.text
    gate.set()
    assert backend.left.acquire(timeout=10)
    assert "x-late" not in response.headers, "an abandoned thread has no way to the client"


async def test_r46_while_some_hang_others_are_served(gate: threading.Event) -> None:
    backend = Hanging(gate)
    auth = CustomAuth(backend, timeout=30, threads=2)
    hung = asyncio.create_task(ask(auth, "bob"))
    assert (await ask(auth, "alice")).id == "alice"
    assert not hung.done()
    gate.set()
    assert (await hung).id == "bob"


async def test_r46_hung_calls_keep_their_threads_and_no_more_are_started(
    gate: threading.Event,
) -> None:
    backend = Hanging(gate)
    before = set(threading.enumerate())
    auth = CustomAuth(backend, timeout=0.05, threads=2)
    for _ in range(5):
        with pytest.raises(AuthUnavailable) as caught:
            await ask(auth, "bob")
        assert caught.value.reason == "backend_timeout"
    with pytest.raises(AuthUnavailable):
        await ask(auth, "alice")
    running = [t for t in threading.enumerate() if t not in before]
    assert len(running) == 2
    assert all(thread.daemon for thread in running), "they do not keep the process alive"

    gate.set()
    patient = CustomAuth(backend, timeout=30, threads=2)
    patient._threads = auth._threads
    assert (await ask(patient, "alice")).id == "alice", "ended calls give their threads back"


async def test_r46_an_async_backend_that_hangs_is_cancelled() -> None:
    cancelled = asyncio.Event()

    class Hung(BaseAuth):
        async def authenticate(  # type: ignore[override]
            self, res: Response, credential: HTTPAuthorizationCredentials
        ) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    with pytest.raises(AuthUnavailable) as caught:
        await ask(CustomAuth(Hung(), timeout=0.05))
    assert caught.value.reason == "backend_timeout"
    assert cancelled.is_set()


async def test_a_machine_without_threads_is_a_503_and_loses_no_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auth = CustomAuth(Saying(lambda _: {"user_id": "alice"}), threads=1)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(AuthUnavailable):
            await ask(auth)
    assert (await ask(auth)).id == "alice"


def test_an_answer_that_comes_after_the_loop_has_closed_harms_nobody(
    gate: threading.Event,
) -> None:
    backend = Hanging(gate)

    async def give_up() -> None:
        with pytest.raises(AuthUnavailable):
            await ask(CustomAuth(backend, timeout=0.05), "bob")

    asyncio.run(give_up())
    gate.set()
    assert backend.left.acquire(timeout=10)
