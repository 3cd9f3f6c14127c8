"""`agentflow token`: a JWT that the configured server accepts."""

import json
import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentflow_server.auth.keys import SECRET_BYTES, VerifyingKey, load_key
from agentflow_server.cli.failures import explained
from agentflow_server.cli.logs import set_up_logs
from agentflow_server.config import JwtConfig, read_config
from agentflow_server.errors import ConfigError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")


def print_token(
    path: Path | None,
    *,
    user_id: str,
    claims: Sequence[str],
    expires: str,
    key_file: Path | None,
) -> None:
    """Nothing but the token goes to stdout."""
    # A private key is what the loader of keys warns about, and exactly what is wanted here.
    set_up_logs("error")
    with explained():
        auth = read_config(path).auth
        if not isinstance(auth, JwtConfig):
            raise ConfigError('token: needs "auth": "jwt" in the configuration')
        payload = make_payload(auth, user_id=user_id, claims=claims, expires=expires)
        print(sign(auth, payload, find_signing_key(auth, key_file)))


def make_payload(
    auth: JwtConfig, *, user_id: str, claims: Sequence[str], expires: str
) -> dict[str, Any]:
    """Raises ConfigError. A claim given by name replaces what is set here, `exp` too."""
    now = int(time.time())
    payload: dict[str, Any] = {
        auth.user_id_claim or "user_id": user_id,
        "iat": now,
        "exp": now + parse_duration(expires),
    }
    if auth.issuer is not None:
        payload["iss"] = auth.issuer
    if auth.audience is not None:
        payload["aud"] = auth.audience
    return payload | dict(map(_parse_claim, claims))


def parse_duration(text: str) -> int:
    """Seconds. Raises ConfigError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ConfigError(f"--expires: expected a time like 30s, 15m, 1h or 7d, found {text!r}")
    return int(match[1]) * _SECONDS[match[2]]


def find_signing_key(auth: JwtConfig, key_file: Path | None) -> str:
    """The text of a key that signs and belongs to the configured one. Raises ConfigError."""
    configured = auth.secret_key.get_secret_value()
    trusted = _load(auth, configured, auth.secret_name)
    if auth.algorithm in SECRET_BYTES:
        if key_file:
            raise ConfigError(f"--key: {auth.algorithm} signs with the configured secret alone")
        return configured
    text = _read_key(key_file) if key_file else configured
    if "PRIVATE KEY-----" not in text:
        held = f"{key_file} holds" if key_file else f"{auth.secret_name} holds"
        raise ConfigError(
            f"{held} a public key, which cannot sign; name the private one: --key FILE"
        )
    if _numbers(_load(auth, text, "--key" if key_file else auth.secret_name)) != _numbers(trusted):
        raise ConfigError("--key: is not the private half of the configured key")
    return text.replace("\\r", "").replace("\\n", "\n")


def sign(auth: JwtConfig, payload: dict[str, Any], key: str) -> str:
    with warnings.catch_warnings():
        # A weak secret that came as far as this is allowed by the configuration.
        warnings.simplefilter("ignore", jwt.warnings.InsecureKeyLengthWarning)
        return jwt.encode(payload, key, algorithm=auth.algorithm)


def _load(auth: JwtConfig, text: str, name: str) -> VerifyingKey:
    weak = auth.allow_weak_secret
    return load_key(text, auth.algorithm, variable=name, allow_weak_secret=weak)


def _numbers(key: VerifyingKey) -> object:
    assert isinstance(key.material, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)  # noqa: S101
    return key.material.public_numbers()


def _read_key(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--key: {file} cannot be read as text") from None


def _parse_claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--claim: expected name=value, found {text!r}")
    try:
        return name, json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return name, value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
