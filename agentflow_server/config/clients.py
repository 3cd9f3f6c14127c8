"""Applications that get tokens from the token server: how the file describes them."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr

from agentflow_server.config.addresses import SecureUrl
from agentflow_server.config.explain import Problems
from agentflow_server.config.fields import Scope, Text, expected
from agentflow_server.config.reading import find_variable
from agentflow_server.config.sections import Section

GrantType = Literal["authorization_code", "refresh_token", "password", "client_credentials"]

OWN_CLIENT = "agentflow"
"""Public, and there from the start: for the API's own pages and the console."""
LEAST_SECRET = 32

_CLIENT_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_SECRET = re.compile(r"[\x21-\x7E]+")
_ADVICE = '"agentflow secret" makes a good one'


def _client_id(value: str) -> str:
    if not _CLIENT_ID.fullmatch(value):
        raise expected("a client's id of 1 to 64 letters, digits and . _ ~ -")
    return value


ClientId = Annotated[str, AfterValidator(_client_id)]


class ClientSection(Section):
    """An application that users log in to, or that has tokens of its own."""

    secret: SecretStr | None = Field(
        default=None, description='Only as "${VARIABLE}"; null: it can keep none (public).'
    )
    grants: list[GrantType] | None = Field(
        default=None, min_length=1, description="How it may get tokens; default: what fits it."
    )
    redirect_uris: list[SecureUrl] = Field(
        default=[],
        description="Where browsers come back to, exactly; https, or http to a loopback address, "
        "of which any port is meant.",
    )
    scopes: list[Scope] | None = Field(
        default=None, description="The most its tokens may do; null: whatever the user may."
    )
    name: Text | None = Field(default=None, description="How the login page calls it.")


class ClientConfig(Section):
    """One of the applications. `scopes` of None: whatever the user may do."""

    client_id: str
    name: str
    secret: SecretStr | None = None
    grants: tuple[GrantType, ...]
    redirect_uris: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None


def find_misplaced_client_secrets(raw: Any, problems: Problems) -> bool:
    """Whether the file itself holds a secret; a default in `${VAR:-default}` is one too."""
    before = len(problems.lines)
    clients = raw.get("clients") if isinstance(raw, dict) else None
    for client_id, client in (clients if isinstance(clients, dict) else {}).items():
        match client:
            case {"secret": str(written)} if find_variable(written) is None:
                problems.add(
                    f"token_server.clients.{client_id}.secret",
                    'a secret does not belong into this file; write "${CLIENT_SECRET}" and put '
                    "the value into the environment or the env file",
                )
    return len(problems.lines) > before


def resolve_client(
    client_id: str, client: ClientSection, *, password_grant: bool, problems: Problems
) -> ClientConfig:
    place = f"token_server.clients.{client_id}"
    grants = client.grants or _default_grants(client, password_grant=password_grant)
    if not grants:
        problems.add(f"{place}.redirect_uris", "is missing; a client without a secret needs it")
    if "password" in grants and not password_grant:
        problems.add(f"{place}.grants", '"password" needs "password_grant": true')
    if "client_credentials" in grants and client.secret is None:
        problems.add(f"{place}.secret", 'is missing; "client_credentials" needs it')
    if ("authorization_code" in grants) != bool(client.redirect_uris) and grants:
        problems.add(f"{place}.redirect_uris", 'and "authorization_code" need each other')
    if why := _explain_secret(client.secret):
        problems.add(f"{place}.secret", why)
    return ClientConfig(
        client_id=client_id,
        name=client.name or client_id,
        secret=client.secret,
        grants=tuple(dict.fromkeys(grants)),
        redirect_uris=tuple(client.redirect_uris),
        scopes=None if client.scopes is None else tuple(client.scopes),
    )


def _default_grants(client: ClientSection, *, password_grant: bool) -> list[GrantType]:
    if client.redirect_uris:
        return ["authorization_code", "refresh_token"]
    if client.secret is not None:
        return ["client_credentials"]
    return ["password", "refresh_token"] if password_grant else []


def _explain_secret(secret: SecretStr | None) -> str | None:
    """What is wrong with it; None when nothing is."""
    if secret is None:
        return None
    text = secret.get_secret_value()
    if not _SECRET.fullmatch(text):
        return f"is empty, or not visible ASCII; {_ADVICE}"
    if len(text) < LEAST_SECRET or len(set(text)) < LEAST_SECRET // 4:
        return f"is easy to guess: it needs {LEAST_SECRET} characters, not all alike; {_ADVICE}"
    return None


def make_own_client(issuer: str, *, password_grant: bool) -> ClientConfig:
    grants: tuple[GrantType, ...] = ("authorization_code", "refresh_token")
    return ClientConfig(
        client_id=OWN_CLIENT,
        name=OWN_CLIENT,
        grants=(*grants, "password") if password_grant else grants,
        redirect_uris=(
            "http://127.0.0.1/callback",
            "http://[::1]/callback",
            f"{issuer}/docs/oauth2-redirect",
        ),
    )
