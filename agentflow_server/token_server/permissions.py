"""What a token may do: what its user may do, and no more than was asked for."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from agentflow_server.auth.authorization import ADMIN, ANSWER_ANY
from agentflow_server.models import User
from agentflow_server.token_server.errors import OAuthError

MAX_SCOPES = 64

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Permissions:
    scopes: tuple[str, ...]
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScopeRules:
    """All scopes that routes want, and those that come with a role."""

    known: frozenset[str] = frozenset()
    of_roles: Mapping[str, Collection[str]] = field(default_factory=dict)

    def find_permissions(self, user: User, *limits: Collection[str] | None) -> Permissions:
        """Those of the user within every limit; a limit of None is none.

        A token that is limited bears no roles: they would give back what the limits take.
        """
        found = [frozenset(limit) for limit in limits if limit is not None]
        if not found:
            return Permissions(tuple(user.scopes), tuple(user.roles))
        own = frozenset(user.scopes).union(*(self.of_roles.get(role, ()) for role in user.roles))
        return Permissions(self.narrow(own, *found))

    def narrow(self, own: Collection[str], *limits: Collection[str] | None) -> tuple[str, ...]:
        """`admin` stands for the scopes that it grants, in what somebody has and in what limits him."""
        scopes = self._spread(own)
        for limit in limits:
            if limit is not None:
                scopes &= self._spread(limit)
        return tuple(sorted(scopes))

    def _spread(self, scopes: Collection[str]) -> frozenset[str]:
        found = frozenset(scopes)
        # Of the known ones, `admin` does not grant this: who narrows a token gains nothing by it.
        return found | (self.known - {ANSWER_ANY}) if ADMIN in found else found


def read_scopes(text: str | None) -> tuple[str, ...]:
    """What a request asks for (RFC 6749 section 3.3); empty: everything. Raises OAuthError."""
    if not text:
        return ()
    words = list(dict.fromkeys(filter(None, text.split(" "))))
    if len(words) > MAX_SCOPES or not all(map(_SCOPE.fullmatch, words)):
        raise OAuthError("invalid_scope", "The scope is malformed, or has too many parts")
    return tuple(words)
