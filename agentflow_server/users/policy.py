"""Which passwords are allowed: long ones that nobody guesses first, as NIST 800-63B has it."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from agentflow_server.errors import InvalidRequest

MAX_BYTES = 1024
MIN_LENGTH = 15
LEAST_MIN_LENGTH = 8

# In both directions; what is typed by walking over a keyboard or counting.
_ROWS = (
    "abcdefghijklmnopqrstuvwxyz" * 2,
    "1234567890" * 4,
    "0123456789" * 4,
    "qwertyuiopasdfghjklzxcvbnm" * 2,
    "qwertzuiopasdfghjklyxcvbnm" * 2,
    "azertyuiopqsdfghjklmwxcvbn" * 2,
    "1q2w3e4r5t6y7u8i9o0p" * 2,
    "qazwsxedcrfvtgbyhnujmikolp" * 2,
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p" * 2,
)
_SHORTEST_UNIT = 4
_LEAST_BESIDE_NAME = 6


def encode_password(password: str) -> bytes:
    """Exactly as it was typed, nothing cut off. Raises InvalidRequest."""
    try:
        exact = password.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("The password is not text in UTF-8") from None
    if not exact:
        raise InvalidRequest("The password is empty")
    if len(exact) > MAX_BYTES:
        raise InvalidRequest(f"The password has more than {MAX_BYTES} bytes")
    if b"\0" in exact:
        raise InvalidRequest("The password contains NUL")
    return exact


@dataclass(frozen=True, slots=True)
class PasswordPolicy:
    """Length alone is asked for, no kinds of characters; and what is guessed first is refused."""

    min_length: int = MIN_LENGTH

    def __post_init__(self) -> None:
        if not LEAST_MIN_LENGTH <= self.min_length <= MAX_BYTES:
            raise ValueError(f"min_length is between {LEAST_MIN_LENGTH} and {MAX_BYTES}")

    def check(self, password: str, *, username: str) -> None:
        """Raises InvalidRequest, which never repeats the password."""
        encode_password(password)
        if len(password) < self.min_length:
            raise InvalidRequest(f"The password has fewer than {self.min_length} characters")
        guessed = password.casefold()
        if _is_common(guessed):
            raise InvalidRequest("The password is one of those that are guessed first")
        if _is_made_of(guessed, username):
            raise InvalidRequest("The password is made of the username")


def _is_common(guessed: str) -> bool:
    unit = _find_unit(guessed)
    if len(unit) <= _SHORTEST_UNIT:
        return True
    candidates = {guessed, unit, "".join(filter(str.isalnum, guessed))}
    if candidates & _load_common():
        return True
    return any(guessed in row or guessed[::-1] in row for row in _ROWS)


def _find_unit(text: str) -> str:
    """What it repeats, the last time perhaps only in part; itself if nothing."""
    length = next(n for n in range(1, len(text) + 1) if text[n:] == text[:-n])
    return text[:length]


def _is_made_of(guessed: str, username: str) -> bool:
    """It is the name, forwards and backwards, with hardly anything else."""
    rest = guessed.replace(username, "").replace(username[::-1], "")
    return len(rest) < _LEAST_BESIDE_NAME


@cache
def _load_common() -> frozenset[str]:
    file = files("agentflow_server.users") / "common_passwords.txt"
    return frozenset(file.read_text(encoding="utf-8").split())
