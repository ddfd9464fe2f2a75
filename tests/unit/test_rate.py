"""The rate limiter, on a clock of its own."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.settings import Settings
from service.api.charge import Charge, Rates
from service.rate import SECOND, RateLimiter

PERIODS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}

limits = st.tuples(st.integers(1, 10_000), st.sampled_from("smh"), st.integers(1, 50))
gaps = st.lists(
    st.one_of(st.just(0), st.integers(0, SECOND), st.integers(0, 7200 * SECOND)), max_size=60
)


@given(limits, gaps)
def test_in_no_time_more_are_admitted_than_the_burst_and_the_rate(
    limit: tuple[int, str, int], gaps: list[int]
) -> None:
    number, unit, burst = limit
    limiter = RateLimiter(f"{number}/{unit}", burst)
    now, admitted = 0, []
    for gap in gaps:
        now += gap
        if limiter.admit("a", now).admitted:
            admitted.append(now)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            time = admitted[last] - admitted[first]
            assert last - first + 1 <= burst + Fraction(time * number, PERIODS[unit])


@given(limits, st.lists(st.integers(0, SECOND), max_size=60))
def test_who_keeps_to_the_rate_is_never_refused(
    limit: tuple[int, str, int], delays: list[int]
) -> None:
    number, unit, burst = limit
    limiter = RateLimiter(f"{number}/{unit}", burst)
    now = 0
    for delay in delays:
        assert limiter.admit("a", now).admitted
        now += -(-PERIODS[unit] // number) + delay


@given(limits, gaps)
def test_what_is_said_of_the_future_comes_true(
    limit: tuple[int, str, int], gaps: list[int]
) -> None:
    number, unit, burst = limit

    def after(gaps: list[int]) -> tuple[RateLimiter, int]:
        """A limiter with this behind it, and the time of the last of it."""
        limiter, now = RateLimiter(f"{number}/{unit}", burst), 0
        for gap in gaps:
            now += gap
            limiter.admit("a", now)
        return limiter, now

    limiter, now = after(gaps)
    verdict = limiter.admit("a", now)
    for more in range(verdict.remaining):
        assert limiter.admit("a", now).admitted, more
    assert not limiter.admit("a", now).admitted
    behind = [*gaps, 0]
    if verdict.wait:
        limiter, now = after(behind)
        assert not limiter.admit("a", now + verdict.wait - 1).admitted
    limiter, now = after(behind)
    assert limiter.admit("a", now + verdict.wait).admitted
    limiter, now = after(behind)
    assert limiter.admit("a", now + verdict.full).remaining == burst - 1


@given(limits, gaps, st.booleans())
def test_what_is_given_back_was_never_taken(
    limit: tuple[int, str, int], gaps: list[int], before: bool
) -> None:
    number, unit, burst = limit
    one, other = (RateLimiter(f"{number}/{unit}", burst) for _ in range(2))
    now = 0
    for gap in gaps:
        now += gap
        for limiter in (one, other) if before else (one,):
            limiter.admit("a", now)
    if one.admit("b", now).admitted:
        one.give_back("b")
    if one.admit("a", now).admitted:
        one.give_back("a")
    one.give_back("c")
    for client in "ab" if before else "b":
        assert one.admit(client, now) == other.admit(client, now)


def test_the_burst_is_the_rates_own_number_unless_it_is_said() -> None:
    assert RateLimiter("600/m").burst == 600
    assert RateLimiter("600/m").window == 60 * SECOND
    assert RateLimiter("600/m", 6).window == SECOND * 6 // 10


def test_clients_do_not_share() -> None:
    limiter = RateLimiter("1/s", 1)
    assert limiter.admit("a", 0).admitted
    assert limiter.admit("b", 0).admitted
    assert not limiter.admit("a", 0).admitted


def test_who_was_longest_unseen_is_forgotten_when_there_are_too_many() -> None:
    limiter = RateLimiter("1/h", 1, clients=3)
    for client in "abc":
        assert limiter.admit(client, 0).admitted
    assert not limiter.admit("a", 0).admitted  # seen again, though it is refused
    assert limiter.admit("d", 0).admitted
    assert len(limiter._used_until) == 3
    assert [limiter.admit(client, 0).admitted for client in "acd"] == [False] * 3
    assert limiter.admit("b", 0).admitted


def test_who_has_many_addresses_fills_no_memory_and_has_no_caller_forgotten() -> None:
    rates = Rates(Settings(rate_limit="1/h"))
    assert Charge(rates, "ann", "").refusal is None
    for number in range(10_100):
        Charge(rates, None, f"2001:db8:{number:x}::")
    assert len(rates.addresses._used_until) == 10_000
    assert Charge(rates, "ann", "").refusal is not None


@pytest.mark.parametrize("rate", ["", "100", "0/s", "100/d", "-1/s", "1.5/s", "100/s\n", "100 / s"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="expected a rate such as 100/s"):
        RateLimiter(rate)
