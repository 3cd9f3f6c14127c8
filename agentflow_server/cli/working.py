"""`agentflow worker`: executes runs, and listens to nobody."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from uvicorn.loops.auto import auto_loop_factory

from agentflow_server.backend import Backend
from agentflow_server.cli.banner import summarise
from agentflow_server.cli.failures import explained, load_user_code, naming_the_file
from agentflow_server.cli.logs import set_up_logs
from agentflow_server.cli.serving import end_in_spite_of, spare_the_collector
from agentflow_server.config import Config, load_config, unknown_variables, use_folder
from agentflow_server.errors import ConfigError
from agentflow_server.parts import Parts, choose_parts

log = logging.getLogger(__name__)


def work(path: Path | None, *, overrides: Mapping[str, str | int | None], json_logs: bool) -> None:
    """Execute runs until a signal comes."""
    with explained():
        config = load_config(path, overrides=overrides)
        set_up_logs(config.log_level, as_json=json_logs)
        for warning in unknown_variables(config):
            log.warning("%s", warning)
        if not config.is_distributed:
            raise ConfigError(
                f"{config.path.name}: database: a worker needs one that it can share with servers: "
                "postgresql://…"
            )
        use_folder(config)
        parts = load_user_code(config, choose_parts)
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            unstoppable = runner.run(_work(config, parts))
            end_in_spite_of(unstoppable)


async def _work(config: Config, parts: Parts) -> int:
    """Returns how many agents go on although they were cancelled."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, _stop_or_leave, stopped)
    backend = Backend(config, parts)
    opened = backend.open()
    with naming_the_file(config):
        await opened.__aenter__()
    try:
        spare_the_collector()
        log.info("executing runs", extra={k.lower(): v for k, v in summarise(config).items()})
        await stopped.wait()
        log.info("stopping; running runs may finish")
        return await backend.drain()
    finally:
        await opened.__aexit__(None, None, None)


def _stop_or_leave(stopped: asyncio.Event) -> None:
    if stopped.is_set():
        # Ctrl-C once more. Whatever is unfinished is as after a crash.
        os._exit(1)
    stopped.set()
