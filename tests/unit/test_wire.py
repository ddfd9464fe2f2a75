"""What crosses between service and child comes out as it went in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import wire
from jobs.errors import JobNotFound, JobsError, StoreBusy
from jobs.model import ErrorKind, Invocation, Job, JobError, JobId, JobState

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300))
)


@given(FRAMES, st.lists(st.integers(1, 50), min_size=1))
def test_frames_survive_any_cutting_of_the_stream(
    frames: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(wire.frame(*each) for each in frames)
    reader, found, turn = wire.FrameReader(1000), [], 0
    while stream:
        piece = cuts[turn % len(cuts)]
        found += reader.feed(stream[:piece])
        stream, turn = stream[piece:], turn + 1
    assert found == frames


def test_a_frame_above_the_limit_is_refused_before_it_has_come() -> None:
    with pytest.raises(wire.BrokenFrame):
        wire.FrameReader(10).feed(wire.frame(1, 1, bytes(11))[:9])


@given(
    st.lists(
        st.builds(
            Invocation,
            st.text(max_size=40).map(JobId),
            st.integers(0, 2**31),
            st.text(max_size=20),
            st.text(max_size=50),
            st.none() | st.binary(max_size=50),
            st.none() | st.floats(0, 1e9),
            st.integers(1, 100),
            st.booleans(),
            st.none() | st.integers(1, 2**31),
            st.none() | st.text(max_size=10),
        )
    )
)
def test_a_batch_comes_out_as_it_went_in(invocations: list[Invocation]) -> None:
    assert wire.unpack_batch(wire.pack_batch(7, invocations)) == list(enumerate(invocations, 7))


def test_a_job_comes_out_as_it_went_in() -> None:
    job = Job(
        id=JobId("id"),
        task="t",
        args='{"a": "\u00e5"}',
        created_at=1,
        context=b"\x00\xff",
        stored_state=JobState.FAILURE,
        error=JobError(ErrorKind.CRASH, "Crash", "m", None),
        timeout=0.5,
    )
    assert wire.jobs_from_json(wire.jobs_to_json([job, job])) == [job, job]


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (StoreBusy("later"), StoreBusy, "later"),
        (JobNotFound("x"), JobNotFound, "no job has the id 'x'"),
        (ZeroDivisionError("oh"), JobsError, "ZeroDivisionError: oh"),
    ],
)
def test_a_refusal_is_raised_as_what_it_was(
    error: Exception, expected: type[Exception], said: str
) -> None:
    with pytest.raises(expected, match=said):
        wire.open_reply(wire.refusal(error))


@pytest.mark.parametrize("value", [None, 1, {"a": [1]}])
def test_an_answer_is_its_value(value: Any) -> None:
    assert wire.open_reply(wire.answer(value)) == value
