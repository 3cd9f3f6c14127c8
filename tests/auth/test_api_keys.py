"""R60 and R61: keys that nobody guesses, stored hashed, refused from the moment they are revoked."""

import asyncio
import hashlib
import hmac
import math
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials
from hypothesis import example, given
from hypothesis import strategies as st

from agentflow_server.auth import api_key
from agentflow_server.auth.api_key import ApiKeyAuth, make_api_key, split_api_key
from agentflow_server.errors import AuthUnavailable, NotAuthenticated
from agentflow_server.models import ApiKey, Principal
from agentflow_server.stores.sqlite import SqliteStore

NOW = 1_800_000_000.0
START = datetime.fromtimestamp(NOW, UTC)
# What an operator would see; the checksum says that this form never changes by accident.
GOOD = "afk_0123456789ab_" + "A" * 43 + "1iFFS5"


class Touched(SqliteStore):
    """Tells when somebody has written down the use of keys."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.touched = asyncio.Event()

    async def touch_api_keys(self, used: Mapping[str, float]) -> None:
        await super().touch_api_keys(used)
        self.touched.set()


class Desk:
    """An ApiKeyAuth with its store and a clock that stands still."""

    def __init__(self, store: Touched, path: Path) -> None:
        self.store, self.path = store, path
        self.now = NOW
        self.auth = self.open()

    def open(self, **options: Any) -> ApiKeyAuth:
        return ApiKeyAuth(self.store, clock=lambda: self.now, **options)

    async def make(self, user_id: str = "alice", **options: Any) -> tuple[str, ApiKey]:
        text, key, secret_hash = make_api_key(user_id, created_at=START, **options)
        await self.store.add_api_key(key, secret_hash)
        return text, key

    async def ask(self, text: str, scheme: str = "Bearer") -> Principal:
        credential = HTTPAuthorizationCredentials(scheme=scheme, credentials=text)
        return await self.auth.authenticate(
            HTTPConnection({"type": "http"}), Response(), credential
        )

    async def refusal(self, text: str, **options: str) -> tuple[str, str]:
        with pytest.raises(NotAuthenticated) as caught:
            await self.ask(text, **options)
        assert caught.value.token_sent
        return caught.value.reason, str(caught.value)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    path = tmp_path / "agentflow.db"
    async with Touched(path) as store:
        yield Desk(store, path)


def make(**options: Any) -> tuple[str, ApiKey, bytes]:
    return make_api_key("alice", created_at=START, **options)


def test_r60_a_secret_has_256_bits_and_no_two_keys_share_anything() -> None:
    made = [make() for _ in range(200)]
    parts = [split_api_key(text) for text, _, _ in made]
    ids, secrets = zip(*(part for part in parts if part), strict=True)
    assert len(set(ids)) == len(set(secrets)) == 200
    letters = set("".join(secrets))
    assert len(letters) == 62
    assert {len(secret) * math.log2(len(letters)) >= 256 for secret in secrets} == {True}


def test_r60_the_secret_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_key.secrets, "choice", lambda letters: letters[0])
    text, key, _ = make()
    assert key.key_id == "0" * 12
    assert text.startswith("afk_000000000000_" + "0" * 43)


def test_r61_a_key_is_recognised_by_its_form() -> None:
    text, key, secret_hash = make(name="ci", scopes=["threads:read", "admin", "admin"])
    assert text.isascii()
    assert text.startswith(f"afk_{key.key_id}_")
    assert len(text) == 66
    parts = split_api_key(text)
    assert parts is not None
    assert parts[0] == key.key_id
    assert secret_hash == hashlib.sha256(parts[1].encode()).digest()
    assert (key.user_id, key.name, key.scopes) == ("alice", "ci", ["admin", "threads:read"])
    assert parts[1] not in repr(key)


def test_the_form_does_not_change_between_versions() -> None:
    assert split_api_key(GOOD) == ("0123456789ab", "A" * 43)


@given(st.integers(0, len(GOOD) - 1), st.characters())
@example(0, "A")
@example(len(GOOD) - 1, "\u0131")
def test_a_typing_error_is_noticed_without_a_look_up(place: int, letter: str) -> None:
    mistyped = GOOD[:place] + letter + GOOD[place + 1 :]
    assert mistyped == GOOD or split_api_key(mistyped) is None


@pytest.mark.parametrize(
    "text",
    ["", "afk_", GOOD + "\n", " " + GOOD, GOOD[:-1], GOOD + "A", GOOD.upper(), GOOD * 2],
)
def test_other_forms_are_no_keys(text: str) -> None:
    assert split_api_key(text) is None


@pytest.mark.parametrize("user_id", ["", " ", "a" * 257, "a\nb"])
def test_an_id_that_no_caller_could_have_gets_no_key(user_id: str) -> None:
    with pytest.raises(ValueError, match="user id"):
        make_api_key(user_id, created_at=START)


@pytest.mark.parametrize("scope", ["", "a b", 'a"', "a\\b", "ü", "a\n", "a" * 129])
def test_a_scope_that_no_token_could_carry_is_refused(scope: str) -> None:
    with pytest.raises(ValueError, match="a scope is"):
        make(scopes=["fine", scope])


async def test_r61_a_good_key_is_its_users(desk: Desk) -> None:
    until = START + timedelta(days=90)
    text, key = await desk.make(scopes=["threads:read", "admin"], expires_at=until)
    assert await desk.ask(text) == Principal(
        "alice",
        {"user_id": "alice", "api_key_id": key.key_id, "scopes": ["admin", "threads:read"]},
        frozenset({"admin", "threads:read"}),
        method="api_key",
        token_id=key.key_id,
        issued_at=NOW,
        expires_at=NOW + 90 * 86400,
    )
    lasting, _ = await desk.make("bob")
    assert (await desk.ask(lasting)).expires_at is None


async def test_r61_a_revoked_key_is_refused_from_the_next_request_on(desk: Desk) -> None:
    text, key = await desk.make()
    assert (await desk.ask(text)).id == "alice"
    async with SqliteStore(desk.path, exclusive=False) as operator:
        await operator.revoke_api_key(key.key_id, NOW)
    assert await desk.refusal(text) == ("revoked", "Could not validate credentials")


async def test_r61_an_expired_key_is_refused(desk: Desk) -> None:
    text, _ = await desk.make(expires_at=START + timedelta(seconds=1))
    assert (await desk.ask(text)).id == "alice"
    desk.now = NOW + 1
    assert await desk.refusal(text) == ("expired", "Token has expired")


async def test_r60_only_the_whole_key_opens(desk: Desk) -> None:
    (text, key), (other, other_key) = await desk.make(), await desk.make("bob")
    stranger, *_ = make()
    assert await desk.refusal(stranger) == ("unknown_api_key", "Could not validate credentials")
    swapped = f"afk_{key.key_id}_{other.removeprefix(f'afk_{other_key.key_id}_')[:43]}"
    swapped += api_key._sum_up(swapped)
    assert await desk.refusal(swapped) == ("wrong_secret", "Could not validate credentials")
    for broken in (text[:-1], text + "a", text.lower(), "afk_", ""):
        reason, message = await desk.refusal(broken)
        assert reason in {"malformed_api_key", "not_an_api_key"}
        assert message == "Could not validate credentials"


async def test_r61_why_a_key_is_refused_is_said_to_nobody_without_its_secret(desk: Desk) -> None:
    text, key = await desk.make(expires_at=START)
    forged = f"afk_{key.key_id}_{'0' * 43}"
    forged += api_key._sum_up(forged)
    await desk.store.revoke_api_key(key.key_id, NOW)
    assert (await desk.refusal(forged))[0] == "wrong_secret"
    assert (await desk.refusal(text))[0] == "revoked"


async def test_r60_hashes_are_compared_in_constant_time_also_for_an_unknown_id(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    original = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return original(one, other)

    monkeypatch.setattr(api_key.hmac, "compare_digest", compare)
    text, _ = await desk.make()
    await desk.ask(text)
    await desk.refusal(make()[0])
    assert [(len(one), len(other)) for one, other in compared] == [(32, 32), (32, 32)]


async def test_r60_the_database_holds_no_secret(desk: Desk) -> None:
    made = [await desk.make() for _ in range(3)]
    for text, _ in made:
        await desk.ask(text)
    files = {file.name: file.read_bytes() for file in desk.path.parent.iterdir()}
    assert {"agentflow.db", "agentflow.db-wal"} <= set(files)
    contents = b"".join(files.values())
    for text, key in made:
        secret = text.split("_")[2]
        assert key.key_id.encode() in contents
        for part in (secret, secret[:43], secret[:20], secret[20:43]):
            assert part.encode() not in contents


async def test_a_key_is_recognised_by_its_prefix_or_its_header(desk: Desk) -> None:
    text, _ = await desk.make()

    def recognises(auth: ApiKeyAuth, credentials: str, scheme: str = "Bearer") -> bool:
        return auth.recognises(HTTPAuthorizationCredentials(scheme=scheme, credentials=credentials))

    assert recognises(desk.auth, text)
    assert recognises(desk.auth, "afk_nonsense")
    assert not recognises(desk.auth, "eyJhbGciOiJIUzI1NiJ9.e30.x")
    assert recognises(desk.auth, "nonsense", "ApiKey")
    assert not recognises(desk.open(header=False), text, "ApiKey")
    assert (await desk.ask(text, scheme="ApiKey")).id == "alice"
    assert (await desk.refusal("nonsense", scheme="ApiKey"))[0] == "malformed_api_key"
    desk.auth = desk.open(header=False)
    assert (await desk.refusal(text, scheme="ApiKey"))[0] == "not_an_api_key"
    assert (await desk.ask(text)).id == "alice"


async def test_without_a_credential_nobody_is_asked(desk: Desk) -> None:
    with pytest.raises(NotAuthenticated, match="Not authenticated") as caught:
        await desk.auth.authenticate(HTTPConnection({"type": "http"}), Response(), None)
    assert not caught.value.token_sent


def test_openapi_learns_both_ways(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "agentflow.db")
    both, bearer = ApiKeyAuth(store), ApiKeyAuth(store, header=False)
    assert both.security_scheme == bearer.security_scheme
    assert both.security_scheme is not None
    assert both.security_scheme["scheme"] == "bearer"
    assert both.header_scheme == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    assert bearer.header_scheme is None


async def test_a_broken_database_opens_nothing(desk: Desk, tmp_path: Path) -> None:
    text, _ = await desk.make()
    closed = ApiKeyAuth(SqliteStore(tmp_path / "agentflow.db"))
    credential = HTTPAuthorizationCredentials(scheme="Bearer", credentials=text)
    with pytest.raises(AuthUnavailable) as caught:
        await closed.authenticate(HTTPConnection({"type": "http"}), Response(), credential)
    assert caught.value.reason == "credential_store_unavailable"


async def last_use(store: SqliteStore, key: ApiKey) -> datetime | None:
    found = await store.find_api_key(key.key_id)
    assert found is not None
    return found[0].last_used_at


async def test_the_last_use_is_written_later_and_at_the_end(desk: Desk) -> None:
    text, key = await desk.make()
    await desk.auth.open()
    for second in (0, 1, 2):
        desk.now = NOW + second
        await desk.ask(text)
    await desk.refusal(make()[0])
    assert await last_use(desk.store, key) is None
    await desk.auth.close()
    assert await last_use(desk.store, key) == START + timedelta(seconds=2)


async def test_the_last_use_is_written_in_the_background(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_key, "USES_WRITTEN_EVERY", 0.0)
    text, key = await desk.make()
    await desk.auth.open()
    await desk.ask(text)
    await asyncio.wait_for(desk.store.touched.wait(), 10)
    assert await last_use(desk.store, key) == START
    await desk.auth.close()


async def test_a_last_use_that_cannot_be_written_is_kept_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Touched(tmp_path / "agentflow.db")
    desk = Desk(store, tmp_path)
    async with store:
        text, key = await desk.make()
        await desk.ask(text)
    await desk.auth.close()
    assert "could not be written" in caplog.text
    assert text not in caplog.text
    async with store:
        await desk.auth.close()
        assert await last_use(store, key) == START
