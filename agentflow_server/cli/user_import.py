"""`agentflow users import`: all users of a file, or none."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from agentflow_server.cli.acts import Act
from agentflow_server.cli.failures import explained, fail
from agentflow_server.cli.operating import change_database, load_for_operator, tell
from agentflow_server.cli.user_files import MAX_PROBLEMS, Entry, read_users
from agentflow_server.cli.user_lookup import IMPOSSIBLE
from agentflow_server.cli.users import make_add_act
from agentflow_server.databases import Database
from agentflow_server.errors import IdTaken


def import_users(config: Path | None, database: str | None, file: Path) -> None:
    loaded = load_for_operator(config, database)
    with explained():
        entries = read_users(file, datetime.now(UTC))

    async def add(opened: Database) -> tuple[Sequence[Entry], Sequence[Act]]:
        """Those in the way."""
        while True:
            try:
                await opened.users.add_users([(entry.user, entry.secrets) for entry in entries])
            except IdTaken:
                if taken := await _find_taken(opened, entries):
                    return taken, ()
            else:
                return (), [make_add_act(entry.user) for entry in entries]

    def show(taken: Sequence[Entry]) -> None:
        if taken:
            lines = [
                f"{file}, line {entry.line}: there is a user {entry.user.username!r} already"
                for entry in taken
            ]
            if len(lines) > MAX_PROBLEMS:
                lines[MAX_PROBLEMS:] = [f"{file}: and {len(lines) - MAX_PROBLEMS} more of these"]
            fail(*lines, "Nobody was added.", code=IMPOSSIBLE)
        locked = sum(entry.user.password_changed_at is None for entry in entries)
        tell(f"Users added: {len(entries)}")
        if locked:
            tell(f'Without a password, which "agentflow users set-password" gives them: {locked}')

    change_database(loaded, add, show=show)


async def _find_taken(opened: Database, entries: Sequence[Entry]) -> Sequence[Entry]:
    """None, when whoever was in the way has been removed meanwhile."""
    find = opened.users.find_user_by_name
    return [entry for entry in entries if await find(entry.user.username)]
