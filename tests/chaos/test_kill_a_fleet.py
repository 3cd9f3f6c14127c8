"""Processes that share a database of PostgreSQL are killed at random moments, under load: nothing
that was promised is lost.

CHAOS_SEED repeats the choices of a test that failed; CHAOS_KILLS=60 asks for that many deaths.
"""

import os
import secrets
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from tests.chaos.fleet import FleetChaos

KILLS = int(os.environ.get("CHAOS_KILLS") or 6)


@pytest.mark.slow
async def test_nothing_that_was_promised_is_lost_when_some_are_killed(
    tmp_path: Path, postgres_url: str
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))
    print(f"CHAOS_SEED={seed}, {KILLS} kills")
    chaos = FleetChaos(tmp_path, seed, postgres_url)
    try:
        await chaos.run(KILLS)
    finally:
        print("answers and deaths:", dict(sorted(chaos.counts.items())))
    assert chaos.counts["cut off"], "nobody was there when they died"
