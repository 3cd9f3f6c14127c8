"""Where tokens are kept between two uses, and between processes: memory, a file, a keyring."""

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from agentflow_server import private_files
from agentflow_server.client.errors import LoginFailed
from agentflow_server.client.tokens import Token

MAX_BYTES = 256 * 1024


class TokenStore(Protocol):
    """Keeps the token of one login for whoever shares the store."""

    def try_lock(self) -> Callable[[], None] | None:
        """The right to replace the token, as the function that gives it back; None while somebody
        else has it. Never waits."""

    def load(self) -> Token | None:
        """Raises LoginFailed when what is there cannot be used."""

    def save(self, token: Token) -> None:
        """Raises LoginFailed when it cannot be kept."""


class MemoryTokens:
    """For as long as the process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: Token | None = None

    def try_lock(self) -> Callable[[], None] | None:
        return self._lock.release if self._lock.acquire(blocking=False) else None

    def load(self) -> Token | None:
        return self._token

    def save(self, token: Token) -> None:
        self._token = token


class TokenFile:
    """A file that only its owner can read, for all processes that are to share a login.

    It is replaced as a whole, under a lock beside it: nobody ever reads half a token, and nobody
    uses a refresh token that another process has just used up.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).expanduser()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    def try_lock(self) -> Callable[[], None] | None:
        return try_lock_file(self._path.with_name(f"{self._path.name}.lock"))

    def load(self) -> Token | None:
        try:
            with self._path.open("rb") as file:
                if not private_files.is_private(os.fstat(file.fileno())):
                    raise _unusable(
                        f"{self._path}: others can read it; chmod 600 it, and log in anew"
                    )
                return Token.loads(file.read(MAX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _unusable(f"{self._path}: {error}") from error

    def save(self, token: Token) -> None:
        try:
            private_files.replace(self._path, token.dumps())
        except OSError as error:
            raise _unusable(f"{self._path}: {error}") from error


class KeyringTokens:
    """An entry of the system's keyring; needs `pip install 'agentflow-server[keyring]'`."""

    def __init__(self, service: str, user: str) -> None:
        """Raises LoginFailed where the package is missing."""
        try:
            import keyring  # noqa: PLC0415 – an extra
        except ImportError as error:
            raise _unusable("pip install 'agentflow-server[keyring]'") from error
        self._keyring = keyring
        self._entry = service, user

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._entry!r}"

    def try_lock(self) -> Callable[[], None] | None:
        digest = hashlib.sha256("\0".join(self._entry).encode()).hexdigest()[:32]
        return try_lock_file(Path.home() / ".cache" / "agentflow" / f"{digest}.lock")

    def load(self) -> Token | None:
        try:
            text = self._keyring.get_password(*self._entry)
            return None if text is None else Token.loads(text)
        except (self._keyring.errors.KeyringError, ValueError) as error:
            raise _unusable(f"keyring: {error}") from error

    def save(self, token: Token) -> None:
        try:
            self._keyring.set_password(*self._entry, token.dumps())
        except self._keyring.errors.KeyringError as error:
            raise _unusable(f"keyring: {error}") from error


def _unusable(detail: str) -> LoginFailed:
    return LoginFailed(detail, code="token_store")


def try_lock_file(path: Path) -> Callable[[], None] | None:
    """Held until the returned function is called, or the process dies. Raises LoginFailed."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(f"{path}: {error}") from error
    if _lock(descriptor):
        return lambda: os.close(descriptor)
    os.close(descriptor)
    return None


if sys.platform == "win32":  # pragma: no cover – tested where the servers are
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
