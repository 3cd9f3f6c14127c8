"""Secrets that everybody knows, because a guide, a tutorial or a standard prints them."""

import re


def is_published(secret: str) -> bool:
    """True for a secret from the list, and for one that is built around a placeholder."""
    bare = _bare(secret)
    return bare in _PUBLISHED or any(placeholder in bare for placeholder in _PLACEHOLDERS)


def _bare(text: str) -> str:
    """Case and punctuation do not make a published secret a better one."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


_PLACEHOLDERS = (
    "changeme",
    "changethis",
    "examplekey",
    "examplesecret",
    "insertsecret",
    "jwtsecret",
    "keyboardcat",
    "mysecret",
    "notsosecret",
    "password",
    "placeholder",
    "replaceme",
    "replacethis",
    "reallyreallyreally",
    "secretkey",
    "secretsecret",
    "stringsecret",
    "supersecret",
    "testsecret",
    "topsecret",
    "verysecret",
    "yoursecret",
    "your256bitsecret",
    "your384bitsecret",
    "your512bitsecret",
)

_PUBLISHED = frozenset(
    _bare(secret)
    for secret in (
        # Too short as well; listed so that the message says the worse of the two.
        "secret",
        "test",
        "your-secret-key",
        "test-secret",
        "supersecretkey",
        # Guides for agents behind a login
        "171d7a898dfcd817742364fac151dfce7328f0c88b720909279627ec5cd93197",
        # FastAPI's tutorial on OAuth2 with JWT
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        # jwt.io, of yesterday and today
        "a-string-secret-at-least-256-bits-long",
        "a-valid-string-secret-that-is-at-least-384-bits-long",
        "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
        # Supabase and PostgREST
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "reallyreallyreallyreallyverysafe",
        # Tutorials for Spring
        "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
        "======================BezKoder=Spring===========================",
        # NestJS
        "DO NOT USE THIS VALUE. INSTEAD, CREATE A COMPLEX SECRET AND KEEP IT SAFE OUTSIDE OF THE SOURCE CODE.",
        # RFC 7515 appendix A.1 and RFC 7520 section 3.5
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
        # Every alphabet in order
        "abcdefghijklmnopqrstuvwxyz012345",
        "abcdefghijklmnopqrstuvwxyz123456",
        "0123456789abcdefghijklmnopqrstuvwxyz",
    )
)
