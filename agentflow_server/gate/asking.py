"""Whether a token is good: the server is asked, or keys are."""

import asyncio

from pydantic import AwareDatetime, BaseModel, ConfigDict, StrictBool, ValidationError

from agentflow_server import strict_json
from agentflow_server.auth.fetching import Fetcher, FetchFailed
from agentflow_server.auth.opening import open_jwt
from agentflow_server.errors import AuthUnavailable, ConfigError, NotAuthenticated
from agentflow_server.gate.errors import BadCard, CardExpired, CardRefused, CardUnverified
from agentflow_server.gate.keys import LocalKeys
from agentflow_server.gate.verdicts import Question

MAX_ANSWER = 64 * 1024

_REFUSALS = frozenset({401, 403})
_HINTS = {404: "is api_url right?", 405: "is api_url right?"} | dict.fromkeys(
    (301, 302, 303, 307, 308), "redirects are not followed, as they would take the token along"
)


class _Answer(BaseModel):
    """What /verify-token says; more than this is not asked."""

    model_config = ConfigDict(frozen=True)

    valid: StrictBool
    expires_at: AwareDatetime | None = None


async def ask(question: Question, timeout: float) -> float | None:  # noqa: ASYNC109 – passed on
    """When the token expires, if that is known. Raises CardError unless it is good now."""
    token = question.token.access_token
    if question.keys is None:
        return await _ask_server(question.url, token, timeout)
    return await _ask_keys(question.keys, token, timeout)


async def _ask_server(url: str, token: str, seconds: float) -> float | None:
    fetcher = Fetcher(timeout=seconds, max_bytes=MAX_ANSWER)
    try:
        data = await fetcher.get(url, headers={"Authorization": f"Bearer {token}"})
    except FetchFailed as error:
        if error.status in _REFUSALS:
            raise CardRefused(f"{url} refuses the card's token ({error.status})") from None
        hint = f" ({_HINTS[error.status]})" if error.status in _HINTS else ""
        raise CardUnverified(f"the card's token cannot be verified: {error}{hint}") from error
    finally:
        await fetcher.close()
    return _read_answer(url, data)


def _read_answer(url: str, data: bytes) -> float | None:
    try:
        answer = _Answer.model_validate(strict_json.parse(data, max_depth=20))
    except (ValueError, ValidationError):
        raise CardUnverified(
            f'{url} does not answer {{"valid": true}}, so nothing is known of the card\'s token: '
            "is api_url right?"
        ) from None
    if not answer.valid:
        raise CardRefused(f"{url} refuses the card's token")
    return None if answer.expires_at is None else answer.expires_at.timestamp()


async def _ask_keys(keys: LocalKeys, token: str, seconds: float) -> float | None:
    try:
        verifier = open_jwt(keys.make_config())
    except ConfigError as error:
        raise BadCard(f"keys: {error}") from None
    try:
        async with asyncio.timeout(seconds):
            await verifier.open()
            return (await verifier.judge(token)).expires_at
    except NotAuthenticated as error:
        if str(error) == NotAuthenticated.EXPIRED:
            raise CardExpired("the card's token has expired: a new card is needed") from None
        raise CardRefused(f"the keys do not verify the card's token: {error.reason}") from None
    except AuthUnavailable as error:
        why = "; ".join(verifier.problems()) or error.reason
        raise CardUnverified(f"the card's token cannot be verified: {why}") from None
    except TimeoutError:
        raise CardUnverified(f"the keys could not be had within {seconds:g} s") from None
    finally:
        await verifier.close()
