"""The checker's verdict on histories made by hand: each defect is seen, and only a defect."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model import JobState
from tests.chaos.effects import Effects
from tests.chaos.history import Answer, Cancel, Event, Fault, Gone, Sighting, Start, Submission
from tests.chaos.nemesis import Nemesis, plans
from tests.chaos.observer import Row
from tests.chaos.verdict import Evidence, Verdict, judge

SUCCESS, FAILURE, REVOKED = JobState.SUCCESS, JobState.FAILURE, JobState.REVOKED
PENDING, STARTED = JobState.PENDING, JobState.STARTED


def asked(
    token: str = "t", job_id: str | None = "a", answer: Answer = Answer.ACCEPTED
) -> Submission:
    return Submission(token, "quick", 1.0, 1.1, answer, job_id)


def row(state: JobState = SUCCESS, *, attempt: int = 1, token: str = "t", **fields: Any) -> Row:
    return Row(fields.pop("job_id", "a"), token, "quick", state, attempt, **fields)


def ran(
    *words: str,
    at: float,
    attempt: int = 1,
    pid: int = 5,
    job: str = "a",
    member: str = "service-1",
) -> list[str]:
    """The lines of a run, a tenth of a second apart; `word:detail`."""
    return [
        f"{word} {at + 0.1 * n:f} {job} {attempt} {pid}.{at} {member} {pid} {detail}".rstrip()
        for n, (word, _, detail) in enumerate(word.partition(":") for word in words)
    ]


def killed(at: float, kind: str = "kill_child", pid: int | None = 5) -> Fault:
    return Fault(kind, at, at + 0.05, "service-1", pid, lethal=True)


def seen(*stands: tuple[float, JobState | None, int]) -> list[Sighting]:
    return [Sighting("a", at, state, attempt) for at, state, attempt in stands]


def verdict(*events: Event, rows: Sequence[Row] = (), lines: Sequence[list[str]] = ()) -> Verdict:
    return judge(Evidence(events, Effects.parse(chain(*lines)), rows))


def found(*events: Event, rows: Sequence[Row] = (), lines: Sequence[list[str]] = ()) -> set[str]:
    return set(verdict(*events, rows=rows, lines=lines).kinds())


GOOD = ran("begin", "end:ok", at=2.0)


def test_a_job_that_was_accepted_and_ran_is_as_promised() -> None:
    sightings = seen((1.5, PENDING, 0), (2.1, STARTED, 1), (2.3, SUCCESS, 1))
    good = verdict(asked(), *sightings, rows=[row()], lines=[GOOD])
    assert good.good
    assert str(good).endswith("all promises kept")


def test_an_accepted_job_that_is_kept_nowhere_is_lost() -> None:
    assert found(asked()) == {"lost"}


def test_an_accepted_job_that_is_kept_under_another_id_is_lost() -> None:
    assert found(asked(job_id="b"), rows=[row()], lines=[GOOD]) == {"lost"}


@pytest.mark.parametrize("state", [PENDING, STARTED])
def test_a_job_that_never_reaches_its_end_is_lost(state: JobState) -> None:
    assert found(asked(), rows=[row(state)], lines=[GOOD]) == {"lost"}


def test_a_job_that_failed_without_having_run_is_lost() -> None:
    assert "lost" in found(asked(), rows=[row(FAILURE, kind="bad_context")])
    assert found(asked(), rows=[row(FAILURE, kind="timeout", timeout=0.1)]) == set()


def test_a_job_that_was_seen_and_then_is_no_more_is_lost() -> None:
    sightings = seen((1.5, STARTED, 1), (1.6, None, 0))
    assert found(asked(), *sightings, rows=[row()], lines=[GOOD]) == {"lost"}


def test_a_job_accepted_unknown_to_its_client_is_recovered() -> None:
    unknown = asked(job_id=None, answer=Answer.UNKNOWN)
    both = verdict(unknown, asked("u", None, Answer.UNKNOWN), rows=[row()], lines=[GOOD])
    assert both.good
    assert (both.jobs["of unknown fate"], both.jobs["recovered"]) == (2, 1)


def test_a_job_that_was_refused_and_is_kept_all_the_same_is_unexpected() -> None:
    refused = asked(job_id=None, answer=Answer.REFUSED)
    assert found(refused, rows=[row()], lines=[GOOD]) == {"unexpected"}
    assert found(refused) == set()


def test_a_job_that_nobody_asked_for_is_unexpected() -> None:
    assert found(rows=[row()], lines=[GOOD]) == {"unexpected"}


def test_a_run_of_a_job_that_is_not_kept_is_unexpected() -> None:
    assert found(lines=[GOOD]) == {"unexpected"}


def test_one_request_that_became_two_jobs_is_duplicated() -> None:
    rows = [row(), row(job_id="b")]
    other = ran("begin", "end:ok", at=3.0, job="b")
    assert found(asked(), rows=rows, lines=[GOOD, other]) == {"duplicated"}


TWICE = [ran("begin", "end:ok", at=2.0), ran("begin", "end:ok", at=3.0, attempt=2, pid=6)]


def test_a_second_run_for_no_reason_is_duplicated() -> None:
    assert found(asked(), rows=[row(attempt=2, lost=1)], lines=TWICE) == {"duplicated"}


@pytest.mark.parametrize(
    ("fault", "explains"),
    [
        (killed(2.05), True),
        (killed(2.5), True),
        (killed(2.05, pid=7), False),
        (killed(1.0), False),
        (killed(3.5), False),
        (killed(2.5, "kill_member", None), True),
        (Fault("kill_member", 2.5, 2.6, "worker-1", None, lethal=True), False),
        (Fault("stop_child", 2.05, 2.9, "service-1", 5), False),
    ],
)
def test_a_second_run_is_explained_by_a_lethal_fault_that_hit_the_first(
    fault: Fault, explains: bool
) -> None:
    kinds = found(asked(), fault, rows=[row(attempt=2, crashes=1)], lines=TWICE)
    assert kinds == (set() if explains else {"duplicated"})


def test_a_second_run_is_explained_by_a_retry_and_by_a_death_of_its_own() -> None:
    again = ran("begin", "end:ok", at=3.0, attempt=2, pid=6)
    retried = [ran("begin", "end:raised", at=2.0), again]
    assert found(asked(), rows=[row(attempt=2, max_attempts=2)], lines=retried) == set()
    died = [ran("begin", "dies:kill", at=2.0), again]
    assert found(asked(), rows=[row(attempt=2, crashes=1)], lines=died) == set()


@pytest.mark.parametrize(("back", "kinds"), [(1.9, set()), (-30.0, {"duplicated"})])
def test_a_host_that_is_back_may_begin_what_others_took_until_it_has_heard_of_that(
    back: float, kinds: set[str]
) -> None:
    apart = Fault("cut", back - 1.0, back, "service-1", lethal=True, apart=True)
    lines = [ran("begin", "end:stopped", at=2.0), ran("begin", "end:ok", at=4.0, attempt=2, pid=6)]
    assert found(asked(), apart, rows=[row(attempt=2, lost=1)], lines=lines) == kinds


@pytest.mark.parametrize("first", [["begin", "end:ok"], ["begin", "beat", "beat"]])
def test_two_runs_at_the_same_time_are_an_error_whatever_explains_them(first: list[str]) -> None:
    lines = [ran(*first, at=2.0), ran("begin", "end:ok", at=2.05, attempt=2, pid=6)]
    kinds = found(asked(), killed(2.01), rows=[row(attempt=2, crashes=1)], lines=lines)
    assert kinds == {"overlapping"}


def test_an_attempt_runs_twice_only_around_a_shutdown() -> None:
    lines = [ran("begin", "end:stopped", at=2.0), ran("begin", "end:ok", at=3.0, pid=6)]
    shutdown = killed(2.05, "terminate", None)
    assert found(asked(), shutdown, rows=[row()], lines=lines) == set()
    crash = killed(2.05, "kill_member", None)
    assert found(asked(), crash, rows=[row()], lines=lines) == {"impossible"}


@pytest.mark.parametrize(
    ("kept", "lines"),
    [
        pytest.param(row(), [], id="success without a run"),
        pytest.param(row(), [ran("begin", "end:raised", at=2.0)], id="success after an error"),
        pytest.param(row(FAILURE, kind="exception"), [GOOD], id="an exception nobody raised"),
        pytest.param(row(REVOKED), [GOOD], id="revoked unasked"),
        pytest.param(
            row(attempt=3, max_attempts=3),
            [ran("begin", "end:raised", at=1.5), ran("begin", "end:ok", at=2.0, attempt=3)],
            id="attempts not dense",
        ),
        pytest.param(
            row(attempt=2, max_attempts=2),
            [ran("begin", "end:raised", at=1.5, attempt=2), GOOD],
            id="attempts in disorder",
        ),
        pytest.param(row(attempts=[]), [GOOD], id="an attempt not recorded"),
        pytest.param(row(attempts=[1, 1]), [GOOD], id="an attempt recorded twice"),
        pytest.param(row(attempt=0), [GOOD], id="more runs than attempts"),
        pytest.param(
            row(attempt=2),
            [ran("begin", "end:raised", at=1.5), ran("begin", "end:ok", at=2.0, attempt=2)],
            id="more attempts than allowed",
        ),
        pytest.param(
            row(FAILURE, attempt=4, crashes=4, kind="crash"),
            [ran("begin", "dies:kill", at=1.0 + n, attempt=n) for n in range(1, 5)],
            id="crash budget exceeded",
        ),
        pytest.param(
            row(FAILURE, attempt=4, crashes=3, kind="crash"),
            [ran("begin", "dies:kill", at=1.0 + n, attempt=n) for n in range(1, 5)],
            id="crash budget miscounted",
        ),
        pytest.param(row(FAILURE, kind="crash"), [ran("begin", at=2.0)], id="vanished"),
    ],
)
def test_what_cannot_be_is_impossible(kept: Row, lines: list[list[str]]) -> None:
    assert found(asked(), rows=[kept], lines=lines) == {"impossible"}


@pytest.mark.parametrize(
    "sightings",
    [
        seen((2.2, FAILURE, 1), (2.3, SUCCESS, 1)),
        seen((2.2, SUCCESS, 1), (2.3, PENDING, 1)),
        seen((2.2, FAILURE, 1)),
        seen((2.0, STARTED, 3), (2.1, STARTED, 1)),
    ],
)
def test_a_way_that_no_job_goes_is_impossible(sightings: list[Sighting]) -> None:
    assert found(asked(), *sightings, rows=[row()], lines=[GOOD]) == {"impossible"}


def test_a_cancelled_job_may_stop_anywhere() -> None:
    cancel = Cancel("a", 1.9)
    for lines in ([], [ran("begin", at=2.0)], [ran("begin", "end:stopped", at=2.0)]):
        assert found(asked(), cancel, rows=[row(REVOKED, attempt=len(lines))], lines=lines) == set()


AGAIN = [ran("begin", "beat", at=2.0), ran("begin", "end:ok", at=20.5, attempt=2, pid=6)]


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        ([killed(2.15), *seen((2.1, STARTED, 1), (4.0, PENDING, 1))], set()),
        ([killed(2.15), *seen((2.1, STARTED, 1), (9.0, PENDING, 1))], {"late"}),
        ([killed(2.15), *seen((2.1, STARTED, 1), (4.0, STARTED, 2))], set()),
        (
            [
                killed(2.15, "kill_member", None),
                Start("service-2", 12.0, 13.0),
                *seen((2.1, STARTED, 1), (14.0, PENDING, 1)),
            ],
            set(),
        ),
        (
            [
                killed(2.15, "kill_member", None),
                Start("service-2", 3.0, 4.0),
                *seen((2.1, STARTED, 1), (19.0, PENDING, 1)),
            ],
            {"late"},
        ),
        (
            [
                killed(2.15, "kill_forkserver", None),
                killed(2.9, "kill_member", None),
                Start("service-2", 12.0, 13.0),
                *seen((2.1, STARTED, 1), (14.0, PENDING, 1)),
            ],
            set(),
        ),
        ([killed(2.15, "kill_member", None), *seen((2.1, STARTED, 1), (4.0, PENDING, 1))], set()),
        (
            [killed(2.15, "kill_member", None), *seen((2.1, STARTED, 1), (9.0, PENDING, 1))],
            {"late"},
        ),
        (
            [killed(2.15, "terminate", None), *seen((2.1, STARTED, 1), (9.0, PENDING, 1))],
            set(),
        ),
    ],
)
def test_a_lost_attempt_has_to_be_back_in_time(events: list[Event], kinds: set[str]) -> None:
    kept = row(attempt=2, lost=1)
    assert found(asked(), *events, rows=[kept], lines=AGAIN) == kinds


def test_what_outlives_a_killed_service_or_its_own_job_for_too_long_is_late() -> None:
    assert found(Gone("service-1", 2.0, 3.0)) == set()
    assert found(Gone("service-1", 2.0, 9.0)) == {"late"}
    left = [*GOOD, *ran("begin", "beat", at=9.0)[1:]]
    left[-1] = left[-1].replace("5.9.0", "5.2.0")
    assert found(asked(), rows=[row()], lines=[left]) == {"late"}


def test_jobs_count_as_clients_of_the_jobs_they_submit() -> None:
    parent = ran("begin", "ask:t/1", "asked:t/1 b", "end:ok", at=2.0)
    child = ran("begin", "end:ok", at=3.0, job="b")
    assert (
        found(asked(), rows=[row(), row(job_id="b", token="t/1")], lines=[parent, child]) == set()
    )
    assert found(asked(), rows=[row()], lines=[parent]) == {"lost"}
    unsure = ran("begin", "ask:t/1", "dies:kill", at=1.0)
    assert (
        found(
            asked(),
            rows=[row(attempt=2, crashes=1)],
            lines=[unsure, ran("begin", "end:ok", at=2.0, attempt=2)],
        )
        == set()
    )


@given(st.integers(1, 20), st.sets(st.integers(0, 19)))
def test_each_lost_job_is_told_and_no_other(count: int, lost: set[int]) -> None:
    events = [asked(f"t{n}", f"job-{n}") for n in range(count)]
    rows = [row(job_id=f"job-{n}", token=f"t{n}") for n in range(count) if n not in lost]
    lines = [
        ran("begin", "end:ok", at=2.0 + n, job=f"job-{n}") for n in range(count) if n not in lost
    ]
    told = {violation.job for violation in verdict(*events, rows=rows, lines=lines).violations}
    assert told == {f"job-{n}" for n in range(count) if n in lost}


def test_the_same_seed_plans_the_same_faults() -> None:
    one, same, other = (
        zip(range(50), plans(seed, Nemesis.faults), strict=False) for seed in (1, 1, 2)
    )
    first = list(one)
    assert first == list(same)
    assert first != list(other)
    assert {plan.kind for _, plan in first[: len(Nemesis.faults)]} == {*Nemesis.faults}
