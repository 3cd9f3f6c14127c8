"""`agentflow token`: a JWT that the configured server accepts."""

import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentflow_server.auth.claims import read_user_id
from agentflow_server.auth.keys import SECRET_BYTES, VerifyingKey, load_key
from agentflow_server.cli.durations import parse_duration
from agentflow_server.cli.failures import explained
from agentflow_server.cli.logs import set_up_logs
from agentflow_server.config import AuthConfig, JwtConfig, KeyConfig, StaticKeys, read_config
from agentflow_server.errors import ConfigError


def print_token(
    path: Path | None,
    *,
    user_id: str,
    claims: Sequence[str],
    expires: str,
    key_file: Path | None,
    kid: str | None,
) -> None:
    """Nothing but the token goes to stdout."""
    # A private key is what the loader of keys warns about, and exactly what is wanted here.
    set_up_logs("error")
    with explained():
        auth, key = choose_key(read_config(path).auth, kid)
        payload = make_payload(auth, user_id=user_id, claims=claims, expires=expires)
        print(sign(key, payload, find_signing_key(auth, key, key_file)))


def choose_key(methods: Sequence[AuthConfig], kid: str | None) -> tuple[JwtConfig, KeyConfig]:
    """The newest key of the first method that has keys of its own. Raises ConfigError."""
    own = [
        (method, key)
        for method in methods
        if isinstance(method, JwtConfig) and isinstance(method.source, StaticKeys)
        for key in method.source.keys
    ]
    if not own:
        raise ConfigError(
            'token: needs "auth": "jwt" in the configuration, or keys of its own in another form'
        )
    chosen = own if kid is None else [pair for pair in own if pair[1].kid == kid]
    if not chosen:
        known = ", ".join(key.kid for _, key in own if key.kid is not None) or "none has an id"
        raise ConfigError(f"--kid: no key has the id {kid!r}; found {known}")
    return chosen[0]


def make_payload(
    auth: JwtConfig,
    *,
    user_id: str,
    claims: Sequence[str],
    expires: str,
    option: str = "--expires",
) -> dict[str, Any]:
    """Raises ConfigError. A claim given by name replaces what is set here, `exp` too."""
    try:
        read_user_id(user_id)
    except ValueError as exc:
        raise ConfigError(f"--user-id: {exc}") from None
    now, lifetime = int(time.time()), parse_duration(expires, option=option)
    if auth.max_lifetime is not None and lifetime > auth.max_lifetime:
        raise ConfigError(f"{option}: max_lifetime allows at most {auth.max_lifetime:g}s")
    payload: dict[str, Any] = {
        **_required_claims(auth),
        auth.claims.user_id or "user_id": user_id,
        "iat": now,
        "exp": now + lifetime,
    }
    if auth.issuer is not None:
        payload["iss"] = auth.issuer
    if auth.audience:
        payload["aud"] = auth.audience[0] if len(auth.audience) == 1 else list(auth.audience)
    return payload | dict(map(parse_claim, claims))


def find_signing_key(auth: JwtConfig, key: KeyConfig, key_file: Path | None) -> str:
    """The text of a key that signs and belongs to the configured one. Raises ConfigError."""
    configured = key.material.get_secret_value()
    trusted = _load(auth, key, configured, key.name)
    if key.algorithm in SECRET_BYTES:
        if key_file:
            raise ConfigError(f"--key: {key.algorithm} signs with the configured secret alone")
        return configured
    text = _read_key(key_file) if key_file else configured
    if "PRIVATE KEY-----" not in text:
        raise ConfigError(
            f"{key_file or key.name} holds a public key, which cannot sign; "
            "name the private one: --key FILE"
        )
    if _numbers(_load(auth, key, text, "--key" if key_file else key.name)) != _numbers(trusted):
        raise ConfigError(f"--key: is not the private half of the configured key ({key.name})")
    return text.replace("\\r", "").replace("\\n", "\n")


def sign(key: KeyConfig, payload: dict[str, Any], text: str) -> str:
    headers = None if key.kid is None else {"kid": key.kid}
    with warnings.catch_warnings():
        # A weak secret that came as far as this is allowed by the configuration.
        warnings.simplefilter("ignore", jwt.warnings.InsecureKeyLengthWarning)
        return jwt.encode(payload, text, algorithm=key.algorithm, headers=headers)


def _required_claims(auth: JwtConfig) -> dict[str, Any]:
    """What the configuration asks of every token, in its simplest form."""

    def simplest(wanted: Any) -> Any:
        match wanted:
            case None:
                return True
            case [first, *_]:
                return first
        return wanted

    return {name: simplest(wanted) for name, wanted in auth.claims.required.items()}


def _load(auth: JwtConfig, key: KeyConfig, text: str, name: str) -> VerifyingKey:
    weak = auth.allow_weak_secret
    return load_key(text, key.algorithm, variable=name, allow_weak_secret=weak)


def _numbers(key: VerifyingKey) -> object:
    assert isinstance(key.material, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)  # noqa: S101
    return key.material.public_numbers()


def _read_key(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--key: {file} cannot be read as text") from None


def parse_claim(text: str) -> tuple[str, Any]:
    """Raises ConfigError."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--claim: expected name=value, found {text!r}")
    try:
        return name, json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return name, value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
