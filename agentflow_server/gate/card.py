"""A card: a token, and the server that says whether it is good."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self, TypedDict, Unpack, final

from pydantic import TypeAdapter, ValidationError

from agentflow_server.client import LoginFailed, Token
from agentflow_server.config.addresses import SecureUrl
from agentflow_server.gate.errors import BadCard, CardNotFound, CardRefused
from agentflow_server.gate.files import Content, read_card, write_card
from agentflow_server.gate.keys import LocalKeys
from agentflow_server.gate.verdicts import Question, Verdicts

TOKEN_VARIABLE = "AGENTFLOW_CARD_TOKEN"  # noqa: S105 – a name
URL_VARIABLE = "AGENTFLOW_CARD_API_URL"
VERIFY_PATH = "/verify-token"
MAX_CACHE_SECONDS = 60.0

_URL = TypeAdapter(SecureUrl)


class Options(TypedDict, total=False):
    """How a card is verified."""

    keys: LocalKeys | None
    """Verify the token with these, instead of asking the server."""
    timeout: float
    """Seconds for the server to answer."""
    cache_seconds: float
    """How long a good answer is believed, 60 at most, and never beyond the token's end."""


@final
class AuthCard:
    """Shown by an agent's code before the agent runs: `require_auth(agent, card)`.

    Threads, tasks and event loops may share one; those that come at the same time ask once.
    """

    def __init__(
        self,
        token: str,
        api_url: str,
        *,
        keys: LocalKeys | None = None,
        timeout: float = 5.0,
        cache_seconds: float = 30.0,
    ) -> None:
        """`api_url` is the server's, or that of its /verify-token. Raises BadCard, ValueError."""
        if not 0 < timeout <= 60:
            raise ValueError("timeout: expected up to 60 seconds")
        if not 0 <= cache_seconds <= MAX_CACHE_SECONDS:
            raise ValueError(f"cache_seconds: expected 0 to {MAX_CACHE_SECONDS:g}")
        try:
            self._token = Token.of(token)
        except LoginFailed as error:
            raise BadCard(f"token: {error.detail}") from None
        self._api_url = find_verify_url(api_url)
        self._keys = keys
        self._verdicts = Verdicts(timeout=timeout, cache_seconds=cache_seconds)

    @classmethod
    def from_config(
        cls, path: str | os.PathLike[str] = "authen/secret.json", **options: Unpack[Options]
    ) -> Self:
        """From a file that `agentflow auth card` has written. Raises CardNotFound, BadCard."""
        file = Path(path).expanduser()
        content = read_card(file)
        try:
            return cls(content.token, content.api_url, **options)
        except BadCard as error:
            raise BadCard(f"{file}: {error}") from None

    @classmethod
    def from_env(
        cls, environment: Mapping[str, str] | None = None, **options: Unpack[Options]
    ) -> Self:
        """From AGENTFLOW_CARD_TOKEN and AGENTFLOW_CARD_API_URL. Raises CardNotFound, BadCard."""
        found = os.environ if environment is None else environment
        if missing := [name for name in (TOKEN_VARIABLE, URL_VARIABLE) if not found.get(name)]:
            raise CardNotFound(f"{' and '.join(missing)}: not set")
        return cls(found[TOKEN_VARIABLE], found[URL_VARIABLE], **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._api_url!r})"

    @property
    def api_url(self) -> str:
        """Where the token is verified."""
        return self._api_url

    def save(self, path: str | os.PathLike[str]) -> None:
        """Into a file that only its owner can read. Another card is replaced, any other file never.

        Raises BadCard, OSError.
        """
        write_card(Path(path).expanduser(), Content(self._api_url, self._token.access_token))

    def check(self) -> None:
        """Returns if the card is good. Raises CardExpired, CardRefused, CardUnverified."""
        self._verdicts.wait_for(self._ask_about(None, None))

    async def acheck(self) -> None:
        """The same without blocking the event loop."""
        await self._verdicts.await_for(self._ask_about(None, None))

    def verify_access_token(self, token: str | None = None, api_url: str | None = None) -> bool:
        """Whether `token` is good, by the server at `api_url`; by default the card's own.

        False means that it is not. Raises CardUnverified if nobody can say, BadCard for a URL that
        no token is sent to.
        """
        try:
            self._verdicts.wait_for(self._ask_about(token, api_url))
        except CardRefused:
            return False
        return True

    async def averify_access_token(
        self, token: str | None = None, api_url: str | None = None
    ) -> bool:
        """The same without blocking the event loop."""
        try:
            await self._verdicts.await_for(self._ask_about(token, api_url))
        except CardRefused:
            return False
        return True

    def _ask_about(self, token: str | None, api_url: str | None) -> Question:
        """Raises CardRefused, BadCard. Keys are for the card's own server."""
        url = self._api_url if api_url is None else find_verify_url(api_url)
        try:
            about = self._token if token is None else Token.of(token)
        except LoginFailed as error:
            raise CardRefused(error.detail) from None
        return Question(about, url, self._keys if url == self._api_url else None)


def find_verify_url(api_url: str) -> str:
    """Raises BadCard. A URL that ends in /verify-token is taken as it is."""
    try:
        url = _URL.validate_python(api_url, strict=True)
    except ValidationError as error:
        found = error.errors()[0]
        expected = "expected " if found["type"] == "expected" else ""
        raise BadCard(f"api_url: {expected}{found['msg']}") from None
    if "?" in url:
        raise BadCard("api_url: expected an address without a query")
    url = url.rstrip("/")
    return url if url.endswith(VERIFY_PATH) else f"{url}{VERIFY_PATH}"
