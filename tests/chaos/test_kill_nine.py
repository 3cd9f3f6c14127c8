"""A server is killed at random moments, under load: nothing that was promised is lost.

CHAOS_SEED repeats the choices of a test that failed (not the moments at which things happen to be
done); CHAOS_KILLS=300 asks for that many deaths instead of the few that every test run has time for.
"""

import os
import secrets
from pathlib import Path

import pytest

from tests.chaos.chaos import Chaos

KILLS = os.environ.get("CHAOS_KILLS")


async def kill_often(folder: Path, kills: int) -> dict[str, int]:
    """How often what was answered, and how the server died."""
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))
    print(f"CHAOS_SEED={seed}, {kills} kills")
    chaos = Chaos(folder, seed)
    try:
        await chaos.run(kills)
    finally:
        print("answers and deaths:", dict(sorted(chaos.counts.items())))
    return chaos.counts


async def test_nothing_that_was_promised_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    counts = await kill_often(tmp_path, 10)
    assert counts["cut off"], "nobody was there when it died"


@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason="CHAOS_KILLS=300 runs it")
async def test_nothing_is_lost_in_hundreds_of_deaths(tmp_path: Path) -> None:
    assert KILLS
    counts = await kill_often(tmp_path, int(KILLS))
    assert counts["cut off"], "nobody was there when it died"
