"""What an issuer publishes about itself, such as where its keys are (OpenID Connect Discovery 1.0, RFC 8414)."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from agentflow_server import strict_json
from agentflow_server.auth.fetching import Fetcher, FetchFailed
from agentflow_server.models import JsonObject


@dataclass(frozen=True, slots=True)
class IssuerMetadata:
    """What we take from an issuer's metadata: where its keys are and what they are used for."""

    jwks_url: str
    algorithms: frozenset[str]


async def discover(fetcher: Fetcher, issuer: str, algorithms: Collection[str]) -> IssuerMetadata:
    """Ask the issuer itself. Raises FetchFailed, also when what it says cannot be used."""
    return _judge(await fetch_metadata(fetcher, issuer), issuer, frozenset(algorithms))


async def fetch_metadata(fetcher: Fetcher, issuer: str) -> JsonObject:
    """The issuer's own. Raises FetchFailed."""
    try:
        metadata = await _fetch(fetcher, issuer.rstrip("/") + "/.well-known/openid-configuration")
    except FetchFailed as exc:
        if exc.status is None:
            raise
        # An authorization server without OpenID Connect.
        metadata = await _fetch(fetcher, find_oauth_metadata_url(issuer))
    named = metadata.get("issuer")
    if named != issuer:
        # Else one issuer could speak for another.
        raise FetchFailed(f"the metadata of {issuer} name another issuer: {named!a:.200}")
    return metadata


def find_oauth_metadata_url(issuer: str) -> str:
    """RFC 8414 section 3.1: the well-known part goes between the host and the path."""
    parts = urlsplit(issuer)
    path = "/.well-known/oauth-authorization-server" + parts.path.rstrip("/")
    return parts._replace(path=path).geturl()


def find_endpoint(metadata: JsonObject, issuer: str, name: str) -> str:
    """Raises FetchFailed."""
    url = metadata.get(name)
    if not isinstance(url, str):
        raise FetchFailed(f"the metadata of {issuer} have no {name}")
    if issuer.startswith("https:") and not url.startswith("https:"):
        raise FetchFailed(f"the {name} of {issuer} is not https: {url!a:.200}")
    return url


async def _fetch(fetcher: Fetcher, url: str) -> JsonObject:
    data = await fetcher.get(url)
    try:
        metadata = strict_json.parse(data, max_depth=20)
    except ValueError as exc:
        raise FetchFailed(f"{url}: {exc}") from None
    if not isinstance(metadata, dict):
        raise FetchFailed(f"{url}: expected a JSON object")
    return metadata


def _judge(metadata: JsonObject, issuer: str, algorithms: frozenset[str]) -> IssuerMetadata:
    jwks_url = find_endpoint(metadata, issuer, "jwks_uri")
    offered = metadata.get("id_token_signing_alg_values_supported")
    if isinstance(offered, list):
        algorithms = algorithms.intersection(name for name in offered if isinstance(name, str))
    if not algorithms:
        raise FetchFailed(f"{issuer} signs with none of the accepted algorithms: {offered!a:.200}")
    return IssuerMetadata(jwks_url, algorithms)
