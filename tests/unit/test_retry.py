"""When a failed attempt is tried again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import ConfigurationError, InvalidArguments, JobsError, Registry, current_job, task
from jobs.retry import Reject, Retry, RetryPolicy


@given(
    st.integers(1, 1000),
    st.floats(0, 1e6, allow_nan=False),
    st.floats(0, 1e6, allow_nan=False),
)
def test_a_delay_lies_between_nothing_and_the_ceiling_of_its_attempt(
    attempt: int, base: float, max_delay: float
) -> None:
    delay = RetryPolicy(base=base, max_delay=max_delay).delay(attempt)
    assert 0 <= delay <= min(max_delay, base * 2 ** (attempt - 1))


def test_delays_are_spread_over_all_that_they_may_be() -> None:
    delays = [RetryPolicy(base=1, max_delay=100).delay(4) for _ in range(2000)]
    assert min(delays) < 0.5
    assert max(delays) > 7.5


@pytest.mark.parametrize(
    ("policy", "covered", "not_covered"),
    [
        (RetryPolicy(), {ValueError, TimeoutError, ExceptionGroup}, {SystemExit, GeneratorExit}),
        (RetryPolicy(on=LookupError), {LookupError, KeyError}, {ValueError, TimeoutError}),
        (RetryPolicy(on=(KeyError, OSError)), {KeyError, TimeoutError}, {LookupError}),
        (RetryPolicy(never=OSError), {ValueError}, {OSError, TimeoutError, FileNotFoundError}),
        (RetryPolicy(on=OSError, never=(TimeoutError, KeyError)), {OSError}, {TimeoutError}),
        (RetryPolicy(on=KeyError, never=LookupError), set(), {KeyError}),
        (RetryPolicy(on=()), set(), {Exception}),
        (RetryPolicy(on=BaseException), {SystemExit}, set()),
    ],
)
def test_a_policy_covers_the_classes_it_names_and_never_wins(
    policy: RetryPolicy,
    covered: set[type[BaseException]],
    not_covered: set[type[BaseException]],
) -> None:
    assert {error for error in covered | not_covered if policy.covers(error)} == covered


def work() -> None: ...


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_attempts": 0}, "max_attempts=0 must be a whole number from 1 to 100"),
        ({"max_attempts": 101}, "max_attempts=101 "),
        ({"max_attempts": True}, "max_attempts=True "),
        ({"max_attempts": "3"}, "max_attempts='3' "),
        ({"retry": RetryPolicy(0)}, "max_attempts=0 "),
        ({"retry": RetryPolicy(-1)}, "max_attempts=-1 "),
        ({"retry": RetryPolicy(101)}, "max_attempts=101 "),
        ({"retry": RetryPolicy(base=-1)}, "base=-1 must be from 0"),
        ({"retry": RetryPolicy(base=float("nan"))}, "base=nan must be a number"),
        ({"retry": RetryPolicy(max_delay=-0.5)}, "max_delay=-0.5 "),
        ({"retry": RetryPolicy(max_delay=float("inf"))}, "max_delay=inf "),
        ({"retry": RetryPolicy(on="ValueError")}, "on='ValueError' must be an exception class"),  # type: ignore[arg-type]
        ({"retry": RetryPolicy(on=[ValueError])}, r"on=\[.*\] must be an exception class"),  # type: ignore[arg-type]
        ({"retry": RetryPolicy(never=(int,))}, r"never=.*int.* must be an exception class"),  # type: ignore[arg-type]
        ({"retry": RetryPolicy(never=ValueError("no"))}, r"never=ValueError\('no'\) must"),  # type: ignore[arg-type]
        ({"retry": 3}, "retry=3 must be a RetryPolicy"),
        ({"timeout": -1}, "timeout=-1 must be from 0"),
        ({"timeout": 0}, "timeout=0 must be more than 0"),
        ({"timeout": float("nan")}, "timeout=nan "),
        ({"timeout": 10**400}, "timeout=1000"),
    ],
)
def test_a_wrong_value_is_refused_when_the_task_is_registered_naming_both(
    options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^task work: {named}"):
        task(registry=Registry(), **options)(work)


@pytest.mark.parametrize(
    "wrong",
    [
        {"countdown": -1},
        {"countdown": float("nan")},
        {"countdown": "soon"},
        {"eta": datetime(2100, 1, 1)},  # noqa: DTZ001 - that is what is wrong with it
        {"eta": 5},
        {"countdown": 1, "eta": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_retry_at_no_possible_time_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments):
        Retry(**wrong)


def test_a_delay_is_not_taken_for_a_reason() -> None:
    with pytest.raises(TypeError, match=r"Retry\(5\): .* countdown="):
        Retry(5)  # type: ignore[arg-type]


def test_a_retry_knows_its_delay() -> None:
    assert Retry().delay(7.0) == 7.0
    assert Retry(countdown=0).delay(7.0) == 0
    assert Retry(eta=datetime(2000, 1, 1, tzinfo=UTC)).delay(7.0) == 0
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    assert 3590 < Retry(eta=in_an_hour).delay(7.0) <= 3600


def test_they_say_why() -> None:
    assert str(Retry("the tide is out", countdown=1)) == "the tide is out"
    assert str(Reject("wrong harbour")) == "wrong harbour"
    assert all(str(each()) for each in (Retry, Reject))


def test_outside_a_job_there_is_none_to_ask_about() -> None:
    assert not current_job
    for name in ("id", "cancelled", "retry"):
        with pytest.raises(JobsError, match="outside a job"):
            getattr(current_job, name)
