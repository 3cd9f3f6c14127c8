"""What every BaseAuth backend has to get right, as tests to inherit."""
# ruff: noqa: S101 - asserting is what a suite is for

import asyncio
import copy
from typing import Any
from uuid import UUID

import anyio.to_thread
import pytest
from fastapi import Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException

from agentflow_server.importing import count_positional, is_async_callable
from agentflow_server.interfaces import BaseAuth

REFUSED = object()
"""Stands for `None` and for an HTTPException that puts the blame on the client."""

HOSTILE_CREDENTIALS = (
    "",
    " ",
    ":",
    "..",
    "null",
    "a" * 16_000,
    "\u00fc\u20ac",
    "' OR '1'='1",
    "../../etc/passwd",
    "eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoiYWxpY2UifQ.",
)


class AuthSuite:
    """Subclass it, give it your backend and a credential that is good, and run pytest:

    class TestMyAuth(AuthSuite):
        @pytest.fixture
        def backend(self):
            return MyAuth()

        @pytest.fixture
        def good_credential(self):
            return "a-good-one"
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def backend(self) -> BaseAuth:
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def good_credential(self) -> str:
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def bad_credential(self) -> str:
        return "nobody-was-ever-given-this"

    def test_it_takes_two_or_three_arguments(self, backend: BaseAuth) -> None:
        assert count_positional(backend.authenticate) in {2, 3, -1}

    async def test_a_good_credential_names_its_user(
        self, backend: BaseAuth, good_credential: str
    ) -> None:
        claims = await ask(backend, good_credential)
        assert isinstance(claims, dict), "expected a dict with user_id"
        user_id = claims.get("user_id")
        assert isinstance(user_id, str | int | UUID)
        assert not isinstance(user_id, bool)
        assert str(user_id).strip()
        assert str(user_id).isprintable()
        assert len(str(user_id)) <= 256

    async def test_the_claims_are_json(self, backend: BaseAuth, good_credential: str) -> None:
        claims = await ask(backend, good_credential)
        assert isinstance(from_json(to_json(claims), allow_inf_nan=False), dict)

    async def test_whoever_changes_an_answer_changes_no_other(
        self, backend: BaseAuth, good_credential: str
    ) -> None:
        claims = await ask(backend, good_credential)
        before = copy.deepcopy(claims)
        claims.update(user_id="mallory", roles=["admin"])
        after = await ask(backend, good_credential)
        assert after["user_id"] == before["user_id"]
        assert after.get("roles") == before.get("roles")

    async def test_a_bad_credential_is_refused(
        self, backend: BaseAuth, bad_credential: str
    ) -> None:
        assert await ask(backend, bad_credential) is REFUSED

    @pytest.mark.parametrize("credential", HOSTILE_CREDENTIALS, ids=range(len(HOSTILE_CREDENTIALS)))
    async def test_a_hostile_credential_is_refused_and_breaks_nothing(
        self, backend: BaseAuth, credential: str
    ) -> None:
        assert await ask(backend, credential) is REFUSED

    async def test_requests_at_the_same_time_do_not_mix(
        self, backend: BaseAuth, good_credential: str, bad_credential: str
    ) -> None:
        expected = (await ask(backend, good_credential))["user_id"]
        credentials = [good_credential, bad_credential] * 20
        answers = await asyncio.gather(*(ask(backend, sent) for sent in credentials))
        for sent, answer in zip(credentials, answers, strict=True):
            if sent == bad_credential:
                assert answer is REFUSED
            else:
                assert answer["user_id"] == expected


async def ask(backend: BaseAuth, credential: str) -> Any:
    """What the server would make of it: the claims, or REFUSED. Other exceptions pass through."""
    bearer = HTTPAuthorizationCredentials(scheme="Bearer", credentials=credential)
    arguments: tuple[Any, ...] = (Response(), bearer)
    if count_positional(backend.authenticate) == 3:
        arguments = (_request(), *arguments)
    call: Any = backend.authenticate
    try:
        if is_async_callable(call):
            answer = await call(*arguments)
        else:
            answer = await anyio.to_thread.run_sync(call, *arguments)
    except HTTPException as exc:
        if 400 <= exc.status_code < 500:
            return REFUSED
        raise
    return REFUSED if answer is None else answer


def _request() -> Request:
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": "/threads",
            "query_string": b"",
            "headers": [],
            "client": ("127.0.0.1", 50000),
        }
    )
