"""What operators say about a user: roles, scopes and claims, as options have them."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from agentflow_server.cli.key_scopes import refuse_misspelt
from agentflow_server.cli.minting import parse_claim
from agentflow_server.cli.operating import tell
from agentflow_server.cli.tables import NOTHING
from agentflow_server.config import Config, RolesConfig
from agentflow_server.errors import ConfigError
from agentflow_server.models import User, UserChange
from agentflow_server.users.making import check_claims, check_words, make_user

_SIMILAR = 0.8


def build_user(
    config: Config,
    username: str,
    *,
    roles: Sequence[str] = (),
    scopes: Sequence[str] = (),
    claims: Sequence[str] = (),
) -> User:
    """One with a password. Raises ConfigError."""
    refuse_misspelt(scopes, config)
    _refuse_misspelt_roles(roles, config)
    with _explaining("users add"):
        return make_user(
            username,
            roles=roles,
            scopes=scopes,
            claims=dict(map(parse_claim, claims)),
            created_at=datetime.now(UTC),
            has_password=True,
        )


def build_change(
    config: Config,
    *,
    roles: Sequence[str] | None,
    scopes: Sequence[str] | None,
    claims: Sequence[str] | None,
) -> UserChange:
    """A blank one leaves none. Raises ConfigError."""
    if roles is scopes is claims is None:
        raise ConfigError("users update: expected --role, --scope or --claim")
    refuse_misspelt([scope for scope in scopes or () if scope], config)
    _refuse_misspelt_roles(roles or (), config)
    with _explaining("users update"):
        return UserChange(
            roles=None if roles is None else check_words(_given(roles), kind="role"),
            scopes=None if scopes is None else check_words(_given(scopes), kind="scope"),
            claims=None if claims is None else check_claims(dict(map(parse_claim, _given(claims)))),
        )


def _given(options: Sequence[str]) -> list[str]:
    return [option for option in options if option]


@contextmanager
def _explaining(command: str) -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise ConfigError(f"{command}: {exc}") from None


def _refuse_misspelt_roles(roles: Sequence[str], config: Config) -> None:
    """Raises ConfigError. Others may be meant for the agent."""
    known = _find_roles(config)
    problems = [
        f"--role: there is no {role!r} – did you mean {close[0]!r}?"
        for role in roles
        if role not in known
        and (close := difflib.get_close_matches(role, known, n=1, cutoff=_SIMILAR))
    ]
    if problems:
        raise ConfigError(*problems)


def _find_roles(config: Config) -> Sequence[str]:
    """Those that `authorization` gives something to."""
    authorization = config.authorization
    return list(authorization.roles) if isinstance(authorization, RolesConfig) else ()


def tell_facts(user: User, config: Config) -> None:
    facts = {
        "User": user.username,
        "User id": user.user_id,
        "Roles": " ".join(user.roles) or NOTHING,
        "Scopes": " ".join(user.scopes) or NOTHING,
    }
    tell(*(f"  {label:<8} {value}" for label, value in facts.items()))
    unknown = [role for role in user.roles if role not in _find_roles(config)]
    if unknown and isinstance(config.authorization, RolesConfig):
        tell(f'Note: "authorization.roles" gives nothing to {", ".join(unknown)}.')
