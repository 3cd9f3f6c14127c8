"""The conformance suite passes good backends and catches bad ones."""

import hmac
from typing import Any

import pytest
from fastapi import HTTPException, Response
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials

from agentflow_server.interfaces import BaseAuth
from agentflow_server.testing.auth import REFUSED, AuthSuite, ask

KEY = "the-key-of-alice"


def is_key(sent: str) -> bool:
    return hmac.compare_digest(sent.encode(errors="replace"), KEY.encode())


class Plain(BaseAuth):
    def authenticate(self, res: Response, credential: HTTPAuthorizationCredentials) -> Any:
        return {"user_id": "alice", "roles": ["user"]} if is_key(credential.credentials) else None


class Raising(BaseAuth):
    async def authenticate(  # type: ignore[override]
        self, request: HTTPConnection, res: Response, credential: HTTPAuthorizationCredentials
    ) -> Any:
        if not is_key(credential.credentials):
            raise HTTPException(401, "Invalid API key")
        return {"user_id": 7, "path": request.url.path}


class TestPlain(AuthSuite):
    @pytest.fixture
    def backend(self) -> BaseAuth:
        return Plain()

    @pytest.fixture
    def good_credential(self) -> str:
        return KEY


class TestRaising(TestPlain):
    @pytest.fixture
    def backend(self) -> BaseAuth:
        return Raising()

    @pytest.fixture
    def bad_credential(self) -> str:
        return KEY.upper()


class Sharing(BaseAuth):
    """Gives away its own dict."""

    def __init__(self) -> None:
        self.user: dict[str, Any] = {"user_id": "alice"}

    def authenticate(self, res: Response, credential: HTTPAuthorizationCredentials) -> Any:
        return self.user


class Breaking(BaseAuth):
    def authenticate(self, res: Response, credential: HTTPAuthorizationCredentials) -> Any:
        raise HTTPException(500, "broken")


async def test_the_suite_catches_a_backend_that_believes_everybody() -> None:
    with pytest.raises(AssertionError):
        await AuthSuite().test_a_bad_credential_is_refused(Sharing(), "whatever")
    with pytest.raises(AssertionError):
        await AuthSuite().test_requests_at_the_same_time_do_not_mix(Sharing(), "good", "bad")


async def test_the_suite_catches_a_backend_that_gives_away_its_own_dict() -> None:
    with pytest.raises(AssertionError):
        await AuthSuite().test_whoever_changes_an_answer_changes_no_other(Sharing(), "good")


async def test_the_suite_catches_a_backend_that_breaks() -> None:
    with pytest.raises(HTTPException):
        await ask(Breaking(), "")
    assert await ask(Plain(), "") is REFUSED


def test_the_suite_asks_for_its_fixtures() -> None:
    suite = AuthSuite()
    for fixture in (AuthSuite.backend, AuthSuite.good_credential):
        with pytest.raises(NotImplementedError, match="override"):
            fixture.__wrapped__(suite)  # type: ignore[attr-defined]
