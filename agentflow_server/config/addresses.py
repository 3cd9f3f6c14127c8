"""Addresses in settings: who can reach them, and what may be asked there."""

import ipaddress
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError

from agentflow_server.config.fields import expected, refused

_REDIS = '"redis://host:6379/0" or "rediss://…"'


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than localhost might be anything."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _split(value: str, what: str, *, schemes: tuple[str, ...]) -> SplitResult:
    try:
        url = urlsplit(value)
        valid = url.scheme in schemes and bool(url.hostname) and url.port != 0
    except ValueError:
        raise expected(what) from None
    # urlsplit leaves out line breaks and tabs; a client would not read a backslash as it does.
    if not valid or not (value.isascii() and value.isprintable()) or set(value) & {" ", "\\"}:
        raise expected(what)
    return url


def _secure_url(value: str) -> str:
    if "@" in value or "#" in value:
        raise refused("the address must not contain a user or a fragment")
    url = _split(value, 'an address like "https://id.example.com/…"', schemes=("https", "http"))
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise refused("must be https; http is for a loopback address only")
    return value


def is_web_address(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def explain_issuer(value: str) -> str | None:
    """Why the keys of this issuer cannot be discovered; None when nothing is wrong."""
    if "?" in value:
        return "an issuer whose keys are discovered has no query"
    try:
        _secure_url(value)
    except PydanticCustomError as exc:
        return exc.message() if exc.type == "refused" else f"expected {exc.message()}"
    return None


def _redis_url(value: SecretStr) -> SecretStr:
    _split(value.get_secret_value(), _REDIS, schemes=("redis", "rediss"))
    return value


def _network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        raise expected('a network like "10.0.0.0/8", or an address') from None
    if network.prefixlen == 0:
        raise refused("would believe everybody; name the networks of your proxies")
    return str(network)


SecureUrl = Annotated[str, AfterValidator(_secure_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Network = Annotated[str, AfterValidator(_network)]
