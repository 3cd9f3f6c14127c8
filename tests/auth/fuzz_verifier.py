"""R86 by hand: many more inputs than a test has time for.

    python tests/auth/fuzz_verifier.py 1000000 [seed]

Signed tokens with any header and claims, good tokens with bytes changed, and plain noise. Whatever
is sent, the verifier names a caller or raises NotAuthenticated for a reason of its own.
"""

import base64
import hashlib
import hmac
import json
import logging
import random
import sys
import time
from collections import Counter
from typing import Any

from agentflow_server.auth.jwt import JwtAuth
from agentflow_server.auth.key_set import FixedKeys, KeySet
from agentflow_server.auth.keys import load_key
from agentflow_server.errors import NotAuthenticated

SECRET = "Zm9v-Yn2qRk8wTq0xLh3vBc6dPs1uEj9gXa4oMi7yKf5tWr"
NOW = 1_800_000_000
HEADERS = ("alg", "typ", "kid", "crit", "b64", "jwk", "cty", "x")
CLAIMS = ("exp", "nbf", "iat", "aud", "iss", "jti", "user_id", "sub", "scope", "roles", "nonce")
NOISE = 'ABCabc019-_=. \n\0é\ud800{}[]":,'
SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, NOW, NOW + 3600, 1e11, 1e308, 10**400, float("nan")),
    *("", "HS256", "none", "JWT", "at+jwt", "alice", "\0", "\ud800", "\u202e", "x" * 300),
)


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Source:
    """Random inputs, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self) -> str:
        kind = self._random.random()
        if kind < 0.1:
            return "".join(self._random.choices(NOISE, k=self._random.randrange(80)))
        header = self._object(HEADERS, {"alg": "HS256", "typ": "JWT"})
        claims = self._object(CLAIMS, {"user_id": "alice", "exp": NOW + 3600})
        token = self.sign(self._bend(header), self._bend(claims))
        return self._change(token) if kind < 0.4 else token

    def sign(self, header: bytes, payload: bytes) -> str:
        message = f"{encode(header)}.{encode(payload)}"
        mac = hmac.new(SECRET.encode(), message.encode(), hashlib.sha256).digest()
        return f"{message}.{encode(mac)}"

    def _object(self, names: tuple[str, ...], members: dict[str, Any]) -> bytes:
        for _ in range(self._random.randrange(3)):
            members[self._random.choice(names)] = self._value()
        return json.dumps(members).encode(errors="surrogatepass")

    def _value(self, depth: int = 0) -> Any:
        kind = self._random.random()
        if kind < 0.8 or depth > 30:
            return self._random.choice(SCALARS)
        inner = [self._value(depth + 1) for _ in range(self._random.randrange(3))]
        return inner if kind < 0.9 else {str(n): value for n, value in enumerate(inner)}

    def _bend(self, data: bytes) -> bytes:
        """Sometimes no JSON any more."""
        if self._random.random() < 0.95:
            return data
        place = self._random.randrange(len(data) + 1)
        return data[:place] + self._random.randbytes(self._random.randrange(4)) + data[place:]

    def _change(self, token: str) -> str:
        place = self._random.randrange(len(token) + 1)
        noise = "".join(self._random.choices(NOISE, k=self._random.randrange(3)))
        return token[:place] + noise + token[place + self._random.randrange(2) :]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    source = Source(seed)
    auth = JwtAuth(FixedKeys(KeySet([load_key(SECRET, "HS256")])), clock=lambda: float(NOW))
    verdicts: Counter[str] = Counter()
    logging.disable()
    for _ in range(count):
        token = source.token()
        try:
            caller = auth.verify(token)
        except NotAuthenticated as exc:
            verdicts[exc.reason] += 1
            if exc.reason == "unverifiable":
                raise SystemExit(f"seed {seed}: refused by no rule of ours: {token!r}") from exc
        else:
            verdicts["accepted"] += 1
            assert caller.id.strip()
            assert caller.claims["user_id"] == caller.id
    print(f"{count} inputs, seed {seed}")
    for verdict, times in verdicts.most_common():
        print(f"{times:9} {verdict}")


if __name__ == "__main__":
    main()
