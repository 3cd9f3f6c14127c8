"""`agentflow serve`: uvicorn, started so that every failure is one clear line."""

import asyncio
import gc
import logging
import math
import os
import signal
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.supervisors import ChangeReload

from agentflow_server.cli.banner import addresses, print_banner, summarise
from agentflow_server.cli.bounded_http import BoundedHttp
from agentflow_server.cli.failures import explained, load_app, naming_the_file
from agentflow_server.cli.listening import bind, url_of
from agentflow_server.cli.logs import set_up_logs
from agentflow_server.cli.supervising import Supervisor
from agentflow_server.config import (
    Config,
    exposure_problems,
    load_config,
    read_config,
    unknown_variables,
)
from agentflow_server.errors import ConfigError

if TYPE_CHECKING:
    from agentflow_server.app import AgentflowApp

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """One call of `agentflow serve`; pickled for the process that `--reload` starts."""

    path: Path | None
    overrides: Mapping[str, str | int | None]
    json_logs: bool = False
    certificate: Path | None = None
    key: Path | None = None
    executes: bool = True
    """Otherwise its runs are for `agentflow worker`."""
    workers: int = 1
    """How many processes."""
    shutdown_delay: float = 0.0
    """Seconds between not being ready any more and not listening any more."""

    def run(self, sockets: Sequence[socket] | None = None) -> None:
        """Serve until a signal comes. `sockets` are bound already, else they are bound here."""
        with explained():
            config = load_config(self.path, overrides=self.overrides)
            self.prepare(config)
            listening = list(sockets or bind(config.host, config.port))
            self._serve(config, listening, partial(self._announce, config, listening))

    def run_several(self) -> None:
        """The same in `workers` processes."""
        with explained():
            # Only those publish the dotenv file, or each would inherit what was in it.
            config = read_config(self.path, overrides=self.overrides)
            self.prepare(config)
            sockets = bind(config.host, config.port)
            Supervisor(partial(self.run_as_one_of, sockets), self.workers, sockets).run()

    def run_as_one_of(
        self, sockets: list[socket], number: int, started: Callable[[], None] | None
    ) -> None:
        """`number` counts from 0; each has its metrics on a port of its own. `started` is for the
        very first one to call, which also says where it serves."""
        with explained():
            config = load_config(self.path, overrides=self.overrides)
            set_up_logs(config.log_level, as_json=self.json_logs)

            def announce() -> None:
                if started is not None:
                    started()
                    self._announce(config, sockets)

            self._serve(_shift_metrics(config, number), sockets, announce)

    def _serve(self, config: Config, sockets: list[socket], announce: Callable[[], None]) -> None:
        app = load_app(config, executes=self.executes)
        server = _Server(self.uvicorn_config(app, config), app, announce, self.shutdown_delay)
        _run(server, sockets)

    def prepare(self, config: Config) -> None:
        """Raises ConfigError when `config` must not be served as it is."""
        set_up_logs(config.log_level, as_json=self.json_logs)
        errors, warnings = exposure_problems(config, config.host)
        errors = [*errors, *self._sharing_problems(config)]
        if errors:
            raise ConfigError(*errors)
        for warning in (*warnings, *unknown_variables(config)):
            log.warning("%s", warning)
        self._check_certificate()

    def _sharing_problems(self, config: Config) -> Sequence[str]:
        if config.is_distributed:
            return ()
        wanted = {"--workers": self.workers > 1, "--no-worker": not self.executes}
        return [
            f"{flag}: several processes share a database of PostgreSQL only; "
            'write "database": "postgresql://…"'
            for flag, is_wanted in wanted.items()
            if is_wanted
        ]

    def uvicorn_config(self, app: "AgentflowApp | str", config: Config) -> uvicorn.Config:
        return uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            # uvicorn's access log prints query strings; ours does not.
            access_log=False,
            log_config=None,
            server_header=False,
            # The caller's address is the socket's: by default uvicorn believes any local peer.
            proxy_headers=False,
            lifespan="off",
            # A moment longer than runs have, so that their callers still hear how they ended.
            timeout_graceful_shutdown=math.ceil(config.runs.shutdown_grace) + 1,
            http=BoundedHttp,
            # A frame is as long as a body at most, and is not unpacked to more than that.
            ws_max_size=config.limits.max_body_bytes,
            ws_per_message_deflate=False,
            ssl_certfile=self.certificate,
            ssl_keyfile=self.key,
            reload=isinstance(app, str),
            reload_dirs=[str(config.folder)] if isinstance(app, str) else None,
            reload_includes=_watched(config) if isinstance(app, str) else None,
        )

    def _check_certificate(self) -> None:
        if self.key and not self.certificate:
            raise ConfigError("--ssl-keyfile: is of no use without --ssl-certfile")
        if not self.certificate:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An empty password instead of a question: nobody sits at a server's terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, OSError) as exc:
            hint = "" if self.key else " (is --ssl-keyfile missing?)"
            raise ConfigError(
                f"--ssl-certfile, --ssl-keyfile: cannot be used: {exc.strerror or exc}{hint}"
            ) from exc

    def _announce(self, config: Config, sockets: Sequence[socket]) -> None:
        url = url_of(config.host, sockets, encrypted=self.certificate is not None)
        if self.json_logs:
            facts = {**addresses(config, url), **summarise(config)}
            extra = {name.lower().replace(" ", "_"): value for name, value in facts.items()}
            log.info("serving on %s", url, extra=extra)
        else:
            print_banner(config, url)


class _Server(uvicorn.Server):
    """Opens the application itself: uvicorn would log what prevents it as a traceback."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: "AgentflowApp",
        announce: Callable[[], None],
        shutdown_delay: float,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._announce = announce
        self._shutdown_delay = shutdown_delay
        self._opened = AsyncExitStack()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        with naming_the_file(self._app.config):
            await self._opened.enter_async_context(self._app.router.lifespan_context(self._app))
        await super().startup(sockets)
        spare_the_collector()
        self._announce()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        await self._retire()
        log.info("stopping; running requests may finish")
        # Side by side, or runs that nobody waits for would get a grace period of their own.
        _, unstoppable = await asyncio.gather(super().shutdown(sockets), self._app.drain())
        await self._opened.aclose()
        end_in_spite_of(unstoppable)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.force_exit:
            # Ctrl-C once more. Whatever is unfinished is as after a crash; what was acknowledged is
            # in the database.
            os._exit(1)

    async def _retire(self) -> None:
        """Let a load balancer find out that we go, while we still answer all it sends."""
        self._app.retire()
        if self._shutdown_delay:
            log.info("not ready any more; listening for another %g s", self._shutdown_delay)
        clock = asyncio.get_running_loop().time
        end = clock() + self._shutdown_delay
        while clock() < end:
            await self.on_tick(0)  # which sets the time in the headers
            await asyncio.sleep(min(0.2, max(0.0, end - clock())))


def end_in_spite_of(unstoppable: int) -> None:
    """The event loop would wait for these agents for ever."""
    if unstoppable:
        log.error("ending in spite of %d agents that do not stop", unstoppable)
        logging.shutdown()
        os._exit(1)


def spare_the_collector() -> None:
    """What is loaded now stays: walking through all of it again and again is most of what garbage
    collection would cost a turn."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)


def serve_reloading(serving: Serving) -> None:
    """Serve in a child process, which is replaced when a file changes."""
    with explained():
        # Only the child publishes the dotenv file, or a change in it would never be seen.
        config = read_config(serving.path, overrides=serving.overrides)
        serving.prepare(config)
        sockets = bind(config.host, config.port)
        watcher = serving.uvicorn_config("agentflow_server.app:create_app", config)
        ChangeReload(watcher, target=partial(_run_child, serving), sockets=sockets).run()


def _run_child(serving: Serving, sockets: list[socket] | None = None) -> None:
    serving.run(sockets)


def _run(server: uvicorn.Server, sockets: list[socket]) -> None:
    # uvicorn raises the signal again when it has finished: that is a clean end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.run(sockets=sockets)
    except KeyboardInterrupt:
        log.debug("stopped by Ctrl-C")


def _shift_metrics(config: Config, number: int) -> Config:
    watch = config.observability
    if watch.metrics is None or watch.metrics.port == 0:
        return config
    metrics = watch.metrics.model_copy(update={"port": watch.metrics.port + number})
    watch = watch.model_copy(update={"metrics": metrics})
    return config.model_copy(update={"observability": watch})


def _watched(config: Config) -> list[str]:
    env = [Path(config.env).name] if config.env else []
    return ["*.py", config.path.name, *env]
