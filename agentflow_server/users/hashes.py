"""Hashes of passwords as text: `$argon2id$v=19$m=19456,t=2,p=1$salt$digest`."""

import base64
import re
import secrets
from dataclasses import dataclass

_HASH = re.compile(
    r"\$argon2id\$v=19\$m=([1-9]\d{0,6}),t=([1-9]\d?),p=([1-9]\d?)"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)
_LEAST_MEMORY = 7_168
_LEAST_WORK = 35_840  # the cheapest that OWASP has: 7 MiB five times
_MOST_MEMORY = 262_144
_MOST_WORK = 1_048_576
_MOST_LANES = 16
_SALT_BYTES = 16
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Argon2id:
    """What a hash costs: `memory` in KiB, how many `passes` over it, and how many `lanes`."""

    memory: int
    passes: int
    lanes: int


PARAMETERS = Argon2id(memory=19_456, passes=2, lanes=1)
"""OWASP's: 19 MiB and some 20 to 30 ms of one core for each password that is tried."""


def make_dummy_hash(parameters: Argon2id) -> str:
    """A hash of no password: checking one against it takes as long as against a real one."""
    salt, digest = (_encode(secrets.token_bytes(n)) for n in (_SALT_BYTES, _DIGEST_BYTES))
    costs = f"m={parameters.memory},t={parameters.passes},p={parameters.lanes}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


def check_foreign_hash(text: str) -> None:
    """A hash of another program's is neither easy to break nor so dear that checking it stops the
    server. Raises ValueError, which does not repeat it."""
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError(
            "expected an Argon2id hash: $argon2id$v=19$m=…,t=…,p=… and, in base64, salt and digest"
        )
    memory, passes, lanes = (int(number) for number in match.groups()[:3])
    if memory < _LEAST_MEMORY or memory * passes < _LEAST_WORK:
        raise ValueError(
            f"the hash is too cheap to break: m is at least {_LEAST_MEMORY}, m times t {_LEAST_WORK}"
        )
    if memory > _MOST_MEMORY or memory * passes > _MOST_WORK or lanes > _MOST_LANES:
        raise ValueError(
            f"the hash is too dear to check: m is at most {_MOST_MEMORY}, m times t {_MOST_WORK}, "
            f"p {_MOST_LANES}"
        )
    if not all(map(_is_base64, match.groups()[3:])):
        raise ValueError("the hash has a salt or a digest that is not base64")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()


def _is_base64(text: str) -> bool:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return False
    return _encode(data) == text
