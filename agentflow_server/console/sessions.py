"""Where a login is kept between two commands: a file for each server, readable for its owner alone."""

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentflow_server.client import Credentials, LoginFailed, RefreshToken, StaticToken, Token
from agentflow_server.client.keeper import LOCK_SECONDS
from agentflow_server.client.stores import TokenFile

FOLDER_VARIABLE = "AGENTFLOW_SESSION"


def find_folder() -> Path:
    """Where sessions and the history of what was typed are."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    variable, default = ("APPDATA", "~") if os.name == "nt" else ("XDG_CONFIG_HOME", "~/.config")
    return Path(os.environ.get(variable) or default).expanduser() / "agentflow"


@dataclass(frozen=True, eq=False)
class Login(RefreshToken):
    """A login that goes on for as long as the server renews it; `username` may be unknown."""

    username: str = ""

    @property
    def source(self) -> str:
        # As the client's Password has it: what that has saved is ours.
        return f"{super().source} {self.username}"


class Session:
    """The login at one server."""

    def __init__(self, url: str) -> None:
        """`url` as the client writes it: one server has one session."""
        name = re.sub(r"[^a-z0-9.]+", "-", url.partition("://")[2].lower())[:60]
        digest = hashlib.sha256(url.encode()).hexdigest()[:12]
        self.path = find_folder() / f"{name}-{digest}.json"
        self._file = TokenFile(self.path)

    def find_token(self) -> Token | None:
        """Raises LoginFailed when it cannot be used."""
        return self._file.load()

    def find_login(self) -> Credentials | None:
        """What a client logs in with. Raises LoginFailed."""
        token = self.find_token()
        if token is None:
            return None
        match token.source.split(" ", 2):
            case [token_url, client_id, username]:
                return Login(
                    token_url, client_id=client_id or None, username=username, store=self._file
                )
        return StaticToken(token.access_token)

    def save(self, token: Token) -> None:
        """Raises LoginFailed."""
        with self._locked():
            self._file.save(token)

    def forget(self) -> None:
        """Nobody is renewing the token meanwhile: it would be saved again. Raises LoginFailed."""
        try:
            with self._locked():
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise LoginFailed(f"{self.path}: {error.strerror}", code="token_store") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        until, pause = time.monotonic() + LOCK_SECONDS, threading.Event()
        while (unlock := self._file.try_lock()) is None:
            if time.monotonic() > until:
                raise LoginFailed("somebody else has been renewing the token for too long")
            pause.wait(0.02)
        try:
            yield
        finally:
            unlock()
