"""Who is charged for the death of the forkserver."""

from types import SimpleNamespace
from typing import Any

from jobs.engines.blame import SPARED_MOST, Blame
from jobs.engines.flights import Flight
from tests.engine_play import invoke


def run(began: float, flight: Flight | None = None) -> Flight:
    flight = Flight(flight.invocation if flight else invoke("add"), 0.0)
    flight.started_at = round(1000 * began)
    return flight


def spared(blame: Blame, guardian: int, *flights: Flight) -> list[bool]:
    lanes: Any = [SimpleNamespace(guardian=guardian, running=flight) for flight in flights]
    blame.judge(guardian, lanes)
    blame.judge(guardian, lanes)  # each lane says so
    return [flight.spared for flight in flights]


def test_who_began_last_is_charged() -> None:
    assert spared(Blame(), 1, run(10.0), run(2.0), run(5.0)) == [False, True, True]


def test_of_those_that_began_together_who_was_charged_before_is_charged_again() -> None:
    blame = Blame()
    one, killer = run(0.0), run(30.0)
    assert spared(blame, 1, one, killer) == [True, False]
    one, killer = run(31.0, one), run(30.9, killer)
    assert spared(blame, 2, one, killer) == [True, False]
    assert spared(blame, 3, run(40.0), run(39.9)) == [False, True]


def test_who_was_charged_once_is_not_charged_for_what_begins_long_after() -> None:
    blame = Blame()
    one = run(30.0)
    assert spared(blame, 1, run(0.0), one) == [True, False]
    assert spared(blame, 2, run(31.0, one), run(60.0)) == [True, False]


def test_who_is_heard_of_late_is_not_charged_beside_the_suspect() -> None:
    blame = Blame()
    killer, late = run(1.0), run(1.1)
    assert spared(blame, 1, killer) == [False]
    assert spared(blame, 1, killer, late) == [False, True]
    assert spared(blame, 2) == []
    assert spared(blame, 2, run(2.0)) == [False]


def test_nobody_is_spared_for_ever() -> None:
    blame = Blame()
    one = run(0.0)
    for guardian in range(1, SPARED_MOST + 1):
        one = run(0.0, one)
        assert spared(blame, guardian, one, run(9.0)) == [True, False]
    one = run(0.0, one)
    assert spared(blame, 99, one, run(9.0)) == [False, False]
