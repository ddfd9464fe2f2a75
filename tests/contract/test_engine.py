"""What every engine does, whichever runs the jobs."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import tests.tasks_for_engines  # noqa: F401 - the inline engine runs them here
from jobs.model import ErrorKind, Invocation, JobState, Outcome, new_job_id
from jobs.progress import ProgressNote
from jobs.protocols import Interrupt, Progress, Started
from jobs.sealing import Sealer
from tests.engine_play import KEYS, MODULE, Play, invoke, playing, says

KINDS = ["inline", "lanes"]


@pytest.fixture(params=KINDS)
async def play(request: pytest.FixtureRequest) -> AsyncIterator[Play]:
    async with playing(request.param) as play:
        yield play


@pytest.mark.parametrize("task", ["add", "add_async"])
async def test_a_job_ends_with_its_result_as_json_and_its_times(play: Play, task: str) -> None:
    outcome = await play.run(task, a=2, b=3)
    assert (outcome.state, outcome.result, outcome.error) == (JobState.SUCCESS, "5", None)
    assert outcome.started_at is not None
    assert outcome.finished_at is not None
    assert outcome.started_at <= outcome.finished_at
    assert outcome.attempt == 1


async def test_arguments_and_results_are_of_the_annotated_types(play: Play) -> None:
    outcome = await play.run("day_after", day="2024-02-28")
    assert outcome.result == '"2024-02-29"'


async def test_a_default_applies_to_what_is_not_given(play: Play) -> None:
    assert (await play.run("add", a=2)).result == "3"


async def test_a_job_is_seen_to_start_before_it_ends(play: Play) -> None:
    invocation = play.start("nothing")
    await play.outcome(invocation)
    about = [e for e in play.events if getattr(e, "job_id", None) == invocation.job_id]
    assert [type(event) for event in about] == [Started, Outcome]


async def test_a_job_knows_which_it_is(play: Play) -> None:
    invocation = Invocation(new_job_id(), 3, f"{MODULE}.who", "{}", None, None, 5, owner="ann")
    play.engine.start([invocation])
    outcome = await play.outcome(invocation)
    assert json.loads(outcome.result or "") == [invocation.job_id, f"{MODULE}.who", 3, 5, "ann"]
    assert outcome.attempt == 3


async def test_an_outcome_names_the_process_that_it_ran_in(play: Play) -> None:
    ended, failed = await play.run("pid"), await play.run("fails")
    assert ended.result == str(ended.pid)
    assert failed.pid is not None
    assert (ended.signal, failed.signal) == (None, None)


@pytest.mark.parametrize("task", ["spill", "spill_async"])
async def test_context_variables_do_not_leak_from_job_to_job(play: Play, task: str) -> None:
    assert [(await play.run(task)).result for _ in range(4)] == ['"clean"'] * 4


async def test_a_sync_task_may_run_an_event_loop_of_its_own(play: Play) -> None:
    assert (await play.run("runs_a_loop")).result == "7"


async def test_every_invocation_comes_back_exactly_once(play: Play) -> None:
    batch = [invoke("add" if n % 3 else "add_async", a=n) for n in range(300)]
    await play.run_all(batch)
    assert sorted(outcome.job_id for outcome in play.outcomes) == sorted(i.job_id for i in batch)
    assert {outcome.state for outcome in play.outcomes} == {JobState.SUCCESS}


# --- failures are values


@pytest.mark.parametrize("task", ["fails", "fails_async"])
async def test_an_exception_is_told_with_the_tasks_own_frames(play: Play, task: str) -> None:
    outcome = await play.run(task, text="that went wrong")
    error = outcome.error
    assert outcome.state is JobState.FAILURE
    assert error is not None
    assert (error.kind, error.type, error.message) == (
        ErrorKind.EXCEPTION,
        "ValueError",
        "that went wrong",
    )
    assert error.traceback is not None
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert error.traceback.count('  File "') == 1
    assert "raise ValueError(text)" in error.traceback


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        *(("raises", k) for k in ("SystemExit", "KeyboardInterrupt", "CancelledError")),
        *(("raises_async", k) for k in ("SystemExit", "KeyboardInterrupt", "CancelledError")),
        ("raises", "GeneratorExit"),
        ("raises_async", "GeneratorExit"),
    ],
)
async def test_what_is_no_exception_but_raised_fails_the_job_only(
    play: Play, task: str, kind: str
) -> None:
    """Fault row 31."""
    outcome = await play.run(task, kind=kind)
    assert outcome.state is JobState.FAILURE
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.type) == (ErrorKind.EXCEPTION, kind)
    assert (await play.run("add", a=1)).result == "2"


async def test_a_stop_iteration_is_a_failure(play: Play) -> None:
    outcome = await play.run("raises", kind="StopIteration")
    assert outcome.state is JobState.FAILURE


async def test_an_exception_without_a_message_to_print_is_a_failure(play: Play) -> None:
    """Fault row 36."""
    error = (await play.run("fails_unspeakably")).error
    assert error is not None
    assert error.type == "Unspeakable"
    assert "RuntimeError" in error.message


@pytest.mark.parametrize("task", ["fails_oddly", "fails_oddly_async"])
@pytest.mark.parametrize(
    ("how", "name", "said"),
    [
        ("Fatal", "Fatal", "could not be written: SystemExit"),
        ("Bottomless", "Bottomless", "could not be written: RecursionError"),
        ("Demanding", "Demanding", "1 and 2"),
        ("Unmade", "Unmade", ""),
        ("huge", "ValueError", "9990"),
        ("unpicklable", "ValueError", "<unlocked _thread.lock"),
        ("long name", "AAA", ""),
        ("group", "ExceptionGroup", "both (2 sub-exceptions)"),
        ("noted", "ValueError", "no"),
    ],
)
async def test_whatever_is_raised_ends_its_own_job_with_words_that_can_be_kept(
    play: Play, task: str, how: str, name: str, said: str
) -> None:
    outcome = await play.run(task, how=how)
    assert outcome.state is JobState.FAILURE
    error = outcome.error
    assert error is not None
    assert error.kind is ErrorKind.EXCEPTION
    assert error.type.startswith(name)
    assert said in error.message
    for text, most in (
        (error.type, 600),
        (error.message, 10_100),
        (error.traceback or "", 100_100),
    ):
        assert len(text) <= most
        assert "\0" not in text
        text.encode()  # no lone surrogate
    assert (await play.run("add", a=1)).result == "2"


@pytest.mark.parametrize("task", ["recurs", "recurs_async"])
async def test_endless_recursion_is_a_failure_with_a_short_traceback(play: Play, task: str) -> None:
    outcome = await play.run(task)
    error = outcome.error
    assert error is not None
    assert (error.kind, error.type) == (ErrorKind.EXCEPTION, "RecursionError")
    assert len(error.traceback or "") < 5_000
    assert (await play.run("add", a=1)).result == "2"


@pytest.mark.parametrize(
    ("task", "args", "said"),
    [
        ("returns_a_deep_list", {"depth": 70}, "deep"),
        ("returns_a_deep_list", {"depth": 100_000}, ""),
        ("returns_itself", {}, ""),
        ("returns_odd_text", {}, "NUL"),
    ],
)
async def test_a_result_that_json_or_a_store_cannot_hold_is_a_bad_result(
    play: Play, task: str, args: dict[str, Any], said: str
) -> None:
    outcome = await play.run(task, **args)
    error = outcome.error
    assert error is not None
    assert (error.kind, error.type) == (ErrorKind.BAD_RESULT, "InvalidJson")
    assert said in error.message
    assert (await play.run("add", a=1)).result == "2"


async def test_messages_are_made_fit_to_keep(play: Play) -> None:
    """Fault row 36."""
    error = (await play.run("fails_unprintably")).error
    assert error is not None
    assert error.message == "a\ufffdb\ufffdc"
    error = (await play.run("fails", text="long " * 10_000)).error
    assert error is not None
    assert len(error.message) < 10_100
    assert "characters left out" in error.message
    assert len(error.traceback or "") < 100_100


async def test_a_result_that_is_no_json_is_a_bad_result(play: Play) -> None:
    """Fault row 33."""
    outcome = await play.run("returns_a_lambda")
    assert outcome.state is JobState.FAILURE
    assert outcome.error is not None
    assert outcome.error.kind is ErrorKind.BAD_RESULT


async def test_a_result_that_is_too_large_is_a_bad_result_with_the_sizes(play: Play) -> None:
    assert (await play.run("returns_text", length=99_000)).state is JobState.SUCCESS
    error = (await play.run("returns_text", length=200_000)).error
    assert error is not None
    assert error.kind is ErrorKind.BAD_RESULT
    assert "200002" in error.message
    assert "100000" in error.message
    assert "max_result_bytes" in error.message


async def test_an_unknown_task_fails(play: Play) -> None:
    """Fault row 38."""
    error = (await play.run("no_such_task")).error
    assert error is not None
    assert (error.kind, error.type) == (ErrorKind.EXCEPTION, "UnknownTask")


async def test_arguments_that_the_task_no_longer_takes_fail(play: Play) -> None:
    outcome = await play.run("add", c=1)
    assert outcome.state is JobState.FAILURE
    assert outcome.error is not None
    assert outcome.error.kind is ErrorKind.EXCEPTION


@pytest.mark.parametrize("blob", [b"", b"nonsense", b"\x01" + bytes(40)])
async def test_a_context_that_cannot_be_opened_is_a_bad_context(play: Play, blob: bytes) -> None:
    invocation = Invocation(new_job_id(), 1, f"{MODULE}.nothing", "{}", blob)
    play.engine.start([invocation])
    error = (await play.outcome(invocation)).error
    assert error is not None
    assert error.kind is ErrorKind.BAD_CONTEXT


async def test_another_jobs_context_is_a_bad_context(play: Play) -> None:
    blob = Sealer(KEYS).seal(new_job_id(), b"{}")
    invocation = Invocation(new_job_id(), 1, f"{MODULE}.nothing", "{}", blob)
    play.engine.start([invocation])
    error = (await play.outcome(invocation)).error
    assert error is not None
    assert error.kind is ErrorKind.BAD_CONTEXT


# --- whether it is tried again


@pytest.mark.parametrize(
    ("task", "kind", "final"),
    [
        ("fails_as", "KeyError", False),
        ("fails_as", "IndexError", True),
        ("fails_as", "ValueError", True),
        ("fails_as", "TimeoutError", True),
        ("fails_as", "SystemExit", True),
        ("fails_as_async", "ValueError", False),
        ("fails_as_async", "TimeoutError", False),
        ("fails_as_async", "SystemExit", True),
        ("fails_as_async", "Reject", True),
        ("fails_as_async", "Retry", False),
        ("fails_as", "Reject", True),
        ("fails_as", "Retry", False),
    ],
)
async def test_the_class_of_an_exception_decides_whether_it_is_tried_again(
    play: Play, task: str, kind: str, final: bool
) -> None:
    outcome = await play.run(task, kind=kind)
    assert outcome.state is JobState.FAILURE
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.type) == (ErrorKind.EXCEPTION, kind)
    assert outcome.final is final
    assert (outcome.again_in is not None) is (kind == "Retry")


async def test_a_job_says_when_it_is_to_run_again(play: Play) -> None:
    outcome = await play.run("asks_again", countdown=7.5)
    assert (outcome.state, outcome.final, outcome.again_in) == (JobState.FAILURE, False, 7.5)
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("Retry", "the tide is out")
    for moment, soonest, latest in (("2000-01-01T00:00:00Z", 0, 0), ("2100-01-01", 1e9, 1e10)):
        again_in = (await play.run("asks_again", eta=moment[:10] + "T00:00:00+02:00")).again_in
        assert again_in is not None
        assert soonest <= again_in <= latest
    delays = [(await play.run("asks_again")).again_in or 0 for _ in range(8)]
    assert len(set(delays)) == 8
    assert max(delays) <= 4


async def test_current_job_retry_raises_within_what_went_wrong(play: Play) -> None:
    outcome = await play.run("asks_again_of_current_job", countdown=3)
    assert outcome.again_in == 3
    assert outcome.error is not None
    trace = outcome.error.traceback or ""
    assert "LookupError: no boat" in trace
    assert "jobs/current.py" not in trace


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"countdown": -1}, "/countdown: must be from 0"),
        ({"eta": "2100-01-01T00:00:00"}, "/eta: must say its UTC offset"),
        ({"countdown": 1, "eta": "2100-01-01T00:00:00Z"}, "either countdown or eta"),
    ],
)
async def test_a_retry_at_no_possible_time_fails_and_says_so(
    play: Play, asked: dict[str, Any], said: str
) -> None:
    outcome = await play.run("asks_again", **asked)
    assert outcome.again_in is None
    assert outcome.error is not None
    assert said in outcome.error.message


# --- stopping


@pytest.mark.parametrize("why", ["cancel", "timeout"])
async def test_an_async_job_can_ask_whether_it_is_to_stop(
    play: Play, tmp_path: Path, why: str
) -> None:
    file = tmp_path / "file"
    time = 0.3 if why == "timeout" else None
    invocation = play.start("asks_whether_to_stop_async", time, file=str(file))
    await says(file, "began")
    if why == "cancel":
        play.engine.interrupt(invocation.job_id, Interrupt.CANCEL)
    outcome = await play.outcome(invocation)
    assert (outcome.state, outcome.result) == (JobState.SUCCESS, '"False True [True]"')


@pytest.mark.parametrize("why", ["cancel", "timeout"])
async def test_a_job_that_looks_up_and_stops_as_asked_has_been_stopped(
    play: Play, tmp_path: Path, why: str
) -> None:
    file = tmp_path / "file"
    invocation = play.start("stops_when_asked", 0.2 if why == "timeout" else None, file=str(file))
    await says(file, "began")
    if why == "cancel":
        play.engine.interrupt(invocation.job_id, Interrupt.CANCEL)
    outcome = await play.outcome(invocation)
    assert outcome.error is not None
    assert outcome.error.kind == {"cancel": "cancelled"}.get(why, why)
    assert outcome.error.traceback is not None
    assert "RuntimeError: as asked" in outcome.error.traceback


async def test_a_cancelled_async_job_cleans_up_and_is_revoked(play: Play, tmp_path: Path) -> None:
    file = tmp_path / "file"
    invocation = play.start("sleeps_async", seconds=30, file=str(file))
    await says(file, "began")
    await play.began(invocation)
    play.engine.interrupt(invocation.job_id, Interrupt.CANCEL)
    outcome = await play.outcome(invocation)
    assert outcome.state is JobState.REVOKED
    assert outcome.error is not None
    assert outcome.error.kind is ErrorKind.CANCELLED
    assert file.read_text() == "cleaned up"


async def test_an_async_job_over_its_time_cleans_up_and_fails(play: Play, tmp_path: Path) -> None:
    file = tmp_path / "file"
    outcome = await play.run("sleeps_async", seconds=30, file=str(file), timeout=0.2)
    assert outcome.state is JobState.FAILURE
    assert outcome.error is not None
    assert outcome.error.kind is ErrorKind.TIMEOUT
    assert "0.2 s" in outcome.error.message
    assert file.read_text() == "cleaned up"


async def test_a_job_within_its_time_is_left_alone(play: Play) -> None:
    assert (await play.run("sleeps_async", seconds=0.1, timeout=20)).state is JobState.SUCCESS
    assert (await play.run("sleeps", seconds=0.1, timeout=20)).state is JobState.SUCCESS


async def test_an_interrupt_for_an_unknown_job_is_ignored(play: Play) -> None:
    play.engine.interrupt(new_job_id(), Interrupt.CANCEL)
    invocation = play.start("add", a=1)
    await play.outcome(invocation)
    play.engine.interrupt(invocation.job_id, Interrupt.CANCEL)
    assert (await play.run("add", a=1)).state is JobState.SUCCESS


async def test_drain_waits_for_what_has_begun(play: Play) -> None:
    invocation = play.start("sleeps_async", seconds=0.3)
    await play.began(invocation)
    await play.engine.drain()
    assert (await play.outcome(invocation)).state is JobState.SUCCESS


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_gives_back_what_runs_and_ends_the_events(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    async with playing(kind) as play:
        invocation = play.start("sleeps_async", seconds=30, file=str(file))
        await says(file, "began")
    assert play.over
    assert play.stopped == [invocation.job_id]
    assert not play.given_back
    assert not play.outcomes
    assert file.read_text() == "cleaned up"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_that_looks_up_stops_when_the_engine_closes(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    async with playing(kind) as play:
        invocation = play.start("stops_when_asked", file=str(file))
        await says(file, "began")
    assert play.stopped == [invocation.job_id]
    (outcome,) = (event for event in play.events if isinstance(event, Outcome))
    assert outcome.started_at is not None  # it said so itself, and was not left behind


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_lets_jobs_finish_within_the_grace(kind: str) -> None:
    async with playing(kind, grace=20) as play:
        invocations: list[Any] = [play.start("sleeps", seconds=0.3)]
        await play.began(invocations[0])
    assert [outcome.job_id for outcome in play.outcomes] == [invocations[0].job_id]
    assert play.outcomes[0].state is JobState.SUCCESS


@pytest.mark.parametrize("kind", KINDS)
async def test_a_closed_engine_takes_nothing(kind: str) -> None:
    async with playing(kind) as play:
        pass
    assert play.engine.free == 0


# What a job says of itself


def progress_of(play: Play, invocation: Invocation) -> list[dict[str, Any]]:
    return [
        json.loads(event.text)
        for event in play.events
        if isinstance(event, Progress) and event.job_id == invocation.job_id
    ]


@pytest.mark.parametrize("task", ["reports", "reports_async", "reports_from_a_thread"])
async def test_the_last_progress_comes_before_the_end_and_few_before_it(
    play: Play, task: str
) -> None:
    for steps in (1, 3, 20_000):
        invocation = play.start(task, steps=steps)
        outcome = await play.outcome(invocation)
        assert outcome.state is JobState.SUCCESS, outcome.error
        assert outcome.started_at is not None
        assert outcome.finished_at is not None
        told = progress_of(play, invocation)
        assert told[-1] == {"done": steps, "total": steps, "message": None}
        assert len(told) <= 2 + (outcome.finished_at - outcome.started_at) / 90
        about = [e for e in play.events if getattr(e, "job_id", None) == invocation.job_id]
        assert isinstance(about[-1], Outcome)


async def test_the_last_progress_is_told_while_the_job_runs_on(play: Play, tmp_path: Path) -> None:
    invocation = play.start("reports_until", steps=50, file=str(tmp_path / "go"))
    await play.until(lambda: any(told["done"] == 50 for told in progress_of(play, invocation)))
    assert play.find(Outcome, invocation) is None
    (tmp_path / "go").touch()
    await play.outcome(invocation)
    assert len(progress_of(play, invocation)) < 5


async def test_progress_is_of_numbers_and_text(play: Play) -> None:
    invocation = play.start("reports_what_it_may_not")
    said = json.loads((await play.outcome(invocation)).result or "")
    assert len(said) == 2 * 7 - 1 + 1  # all but `total=None`
    assert "progress: done must be a number, not True" in said
    assert "progress: total must be from 0 to 2**53, not -1" in said
    assert "progress: message must be text, not b'bytes'" in said


async def test_a_message_is_kept_as_any_store_can_hold_it(play: Play) -> None:
    invocation = play.start("reports", steps=1, message="ü" * 2000)
    await play.outcome(invocation)
    assert progress_of(play, invocation)[-1]["message"] == "ü" * 1000
    assert ProgressNote(1, None, "a\0\ud800").to_json() == (
        '{"done": 1, "total": null, "message": "a\\ufffd?"}'
    )


async def test_progress_is_of_the_job_that_runs(play: Play) -> None:
    for steps in (7, 8):
        invocation = play.start("reports", steps=steps)
        await play.outcome(invocation)
        assert {told["total"] for told in progress_of(play, invocation)} == {steps}
