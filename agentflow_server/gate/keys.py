"""Keys to verify a card's token with, where its server is not to be asked each time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr, ValidationError

from agentflow_server.config import (
    Algorithm,
    Discovery,
    JwksFile,
    JwksUrl,
    JwtConfig,
    KeyConfig,
    KeySource,
    StaticKeys,
)
from agentflow_server.gate.errors import BadCard


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalKeys:
    """One of `jwks_url`, `jwks_file` and `key` (a PEM, or a shared secret) with its `algorithm`;
    with an `issuer` alone, the keys that its metadata names.

    A revoked token verifies until it expires: only its server knows better.
    """

    jwks_url: str | None = None
    jwks_file: str | os.PathLike[str] | None = None
    key: str | None = field(default=None, repr=False)
    algorithm: Algorithm | None = None
    issuer: str | None = None
    audience: str | Sequence[str] = ()
    token_type: str = "at+jwt"  # noqa: S105 – a media type
    """The `typ` a token may have besides JWT."""

    def make_config(self) -> JwtConfig:
        """Raises BadCard."""
        audience = (self.audience,) if isinstance(self.audience, str) else tuple(self.audience)
        try:
            return JwtConfig(
                source=self._find_source(),
                issuer=self.issuer,
                audience=audience,
                token_type=self.token_type,
            )
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise BadCard(f"keys: {place}: {first['msg']}") from None

    def _find_source(self) -> KeySource:
        match self.jwks_url, self.jwks_file, self.key:
            case str(url), None, None:
                return JwksUrl(url)
            case None, file, None if file is not None:
                return JwksFile(Path(file).expanduser().absolute())
            case None, None, str(text) if self.algorithm is not None:
                return StaticKeys((KeyConfig(None, self.algorithm, SecretStr(text), "key"),))
            case None, None, str():
                raise BadCard("keys: a key needs its algorithm, such as ES256")
            case None, None, None if self.issuer is not None:
                return Discovery()
        raise BadCard("keys: expected one of jwks_url, jwks_file and key, or an issuer alone")
