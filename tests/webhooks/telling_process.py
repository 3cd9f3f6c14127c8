"""A server to be killed: `telling_process.py DATABASE URL`, with a run that ends in it.

Says "ended" when the end of the run is stored; with a third argument it sends webhooks, too.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from agentflow_server.config import WebhooksConfig
from agentflow_server.models import NewRun, RunOutcome
from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.webhooks import WebhookSender, sender


async def main(path: Path, url: str, *options: str) -> None:
    async with SqliteStore(path) as store:
        thread_id, run_id = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
        await store.create_thread("alice", thread_id, metadata={})
        new = NewRun(run_id, thread_id, "echo", run_id, "Hello", {}, {}, {}, webhook=url)
        active = (await store.start_run("alice", new)).active
        assert active is not None
        await store.finish_run(active, RunOutcome("success"), [], [])
        sys.stdout.write("ended\n")
        sys.stdout.flush()
        if options:
            sender._SETTLING_SECONDS = 0.0
            values: dict[str, Any] = {"secret": ["A"], "keys": (SecretStr(options[0]),)}
            config = WebhooksConfig(**values, allow_private=True, timeout=1.0)
            async with WebhookSender(store, config):
                await asyncio.Event().wait()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
