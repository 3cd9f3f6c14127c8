"""Time-based one-time passwords (RFC 6238): six digits of SHA-1, a new code every 30 seconds."""

import base64
import hmac
import secrets
from urllib.parse import quote, urlencode

STEP_SECONDS = 30
_DIGITS = 6
_DRIFT = 1
"""Steps that the clock of a phone may be behind or ahead."""
_SECRET_BYTES = 20


def make_totp_secret() -> bytes:
    """What is stored of a user, and shared with his phone."""
    return secrets.token_bytes(_SECRET_BYTES)


def totp_uri(secret: bytes, *, username: str, issuer: str) -> str:
    """For a QR code: what authenticator apps read. As secret as the secret."""
    encoded = base64.b32encode(secret).decode().rstrip("=")
    label = f"{quote(issuer, safe='')}:{quote(username, safe='')}"
    return f"otpauth://totp/{label}?{urlencode({'secret': encoded, 'issuer': issuer})}"


def make_code(secret: bytes, step: int) -> str:
    """RFC 4226 section 5.3."""
    digest = hmac.digest(secret, step.to_bytes(8), "sha1")
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4]) & 0x7FFF_FFFF
    return f"{number % 10**_DIGITS:0{_DIGITS}}"


def find_step(secret: bytes, code: str, now: float) -> int | None:
    """The step whose code this is: of now, the one before or the one after. None: a wrong code.

    Whoever accepts it must make sure that no code is good for two logins.
    """
    current = int(now // STEP_SECONDS)
    typed = code.replace(" ", "").encode(errors="replace")
    found = None
    for step in range(current - _DRIFT, current + _DRIFT + 1):
        if hmac.compare_digest(typed, make_code(secret, step).encode()):
            found = step
    return found
