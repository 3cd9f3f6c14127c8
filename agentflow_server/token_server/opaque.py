"""Codes and refresh tokens: 256 random bits, of which only a hash is kept."""

import hashlib
import secrets

CODE_PREFIX = "afc_"
REFRESH_PREFIX = "afr_"
_MAX = 128


def make_opaque(prefix: str) -> str:
    """Whoever finds one in a log sees what it is."""
    return prefix + secrets.token_urlsafe(32)


def hash_made(text: str) -> bytes:
    """No salt: what is random needs none."""
    return hashlib.sha256(text.encode()).digest()


def hash_opaque(text: str) -> bytes | None:
    """None for what can be none of ours."""
    if len(text) > _MAX or not text.isascii():
        return None
    return hash_made(text)
