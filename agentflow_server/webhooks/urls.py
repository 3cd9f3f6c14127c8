"""Which URLs may be a webhook; what their hosts resolve to is checked at each delivery."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import httpx2

from agentflow_server.config import WebhooksConfig
from agentflow_server.errors import InvalidRequest
from agentflow_server.webhooks.addresses import find_refusal

MAX_LENGTH = 2048
_MAX_HOST = 253

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")
# Numbers at the end make it an address to every resolver, in more forms than one can judge.
_NUMERIC = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_METADATA = frozenset({"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"})
_OWN = re.compile(r"[^.]+|.*\.(localhost|local|internal|lan|home\.arpa)")


def check_url(text: str, config: WebhooksConfig) -> str:
    """In one form for each URL, `scheme://host[:port]/…`. Raises InvalidRequest."""
    if len(text) > MAX_LENGTH:
        raise _refused(f"longer than {MAX_LENGTH} characters")
    # What a client would quote, drop or read as something else.
    if not (text.isascii() and text.isprintable()) or set(text) & set(' \\"<>^`{|}'):
        raise _refused("has a character that belongs into no URL")
    scheme, colon, rest = text.partition(":")
    try:
        # Only for a scheme in lower case it leaves out the port that is usual.
        url = httpx2.URL(scheme.lower() + colon + rest)
    except httpx2.InvalidURL:
        raise _refused("expected an https URL") from None
    _check_form(text, url, allow_http=config.allow_private)
    _check_host(url.raw_host.decode(), config)
    return f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode()}"


def _check_form(text: str, url: httpx2.URL, *, allow_http: bool) -> None:
    if url.scheme != "https" and not (url.scheme == "http" and allow_http):
        raise _refused("expected an https URL")
    if "@" in re.split(r"[/?]", text.partition("://")[2])[0]:
        raise _refused("must not contain a user")
    if "#" in text:
        raise _refused("must not contain a fragment")
    if not url.host or not (url.port is None or 0 < url.port <= 65535):
        raise _refused("expected an https URL")


def _check_host(host: str, config: WebhooksConfig) -> None:
    if config.allow_hosts and not any(_matches(host, one) for one in config.allow_hosts):
        raise _refused("this server tells only hosts that its configuration names")
    if ":" in host or _NUMERIC.fullmatch(host):
        _check_address(host, allow_private=config.allow_private)
    elif not _NAME.fullmatch(host) or len(host) > _MAX_HOST:
        raise _refused("expected an https URL")
    elif host in _METADATA or (_OWN.fullmatch(host) and not config.allow_private):
        raise _refused("its host is not public")


def _check_address(host: str, *, allow_private: bool) -> None:
    try:
        address = IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        raise _refused("its host is neither a name nor an address") from None
    if find_refusal(str(address), allow_private=allow_private):
        raise _refused("its host is not public")


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"webhook: {why}")
