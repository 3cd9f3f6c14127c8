"""Revokes a key and a user beside whoever has the database open, and says what it saw."""

import asyncio
import json
import sys
from pathlib import Path

from agentflow_server.stores.sqlite import SqliteStore
from agentflow_server.testing.store_credentials import NOW, of_user


async def main(path: Path) -> None:
    async with SqliteStore(path, exclusive=False) as store:
        keys = [key.key_id for key in await store.list_api_keys()]
        revoked = await store.revoke_api_key("k1", NOW)
        await store.add_revocation(of_user())
    print(json.dumps({"keys": keys, "revoked": revoked}))


asyncio.run(main(Path(sys.argv[1])))
