"""When a worker counts as dead."""

import pytest

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

from agentflow_server.engines.postgres_leases import Watch


def look(watch, beats, moments):
    return [watch.find_dead(beats, moment) for moment in moments]


def test_a_lease_that_nobody_renews_is_dead_after_a_while():
    watch = Watch(10)
    assert look(watch, {"a": 7.0}, [0, 4, 8, 9.9]) == [set()] * 4
    assert watch.find_dead({"a": 7.0}, 10) == {"a"}


def test_a_lease_that_never_was_renewed_has_as_long():
    watch = Watch(10)
    assert look(watch, {"new": None}, [0, 5, 9]) == [set()] * 3
    assert watch.find_dead({"new": None, "newer": None}, 10) == {"new"}


def test_a_lease_that_is_renewed_lives_on_whatever_its_clock_says():
    watch = Watch(10)
    for moment in range(0, 100, 5):
        assert watch.find_dead({"a": -float(moment), "b": float(moment)}, moment) == set()


def test_a_first_renewal_counts():
    watch = Watch(10)
    assert look(watch, {"a": None}, [0, 5, 9]) == [set()] * 3
    assert look(watch, {"a": 1.0}, [10, 15, 19]) == [set()] * 3
    assert watch.find_dead({"a": 1.0}, 20) == {"a"}


@pytest.mark.parametrize("pause", [6, 60, 6000])
def test_who_was_away_himself_calls_nobody_dead(pause):
    watch = Watch(10)
    assert look(watch, {"a": 1.0}, [0, 5, 5 + pause, 9 + pause, 14 + pause]) == [set()] * 5
    assert watch.find_dead({"a": 1.0}, 15 + pause) == {"a"}


def test_a_lease_that_comes_back_begins_anew():
    watch = Watch(10)
    look(watch, {"a": 1.0}, [0, 5])
    assert watch.find_dead({}, 9) == set()
    assert look(watch, {"a": 1.0}, [10, 15, 19]) == [set()] * 3
