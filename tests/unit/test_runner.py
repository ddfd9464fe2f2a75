"""An attempt that is interrupted before it has come far."""

import json
from collections.abc import Iterator

import pytest

import tests.tasks_for_engines  # noqa: F401 - the runner finds them by name
from jobs.model import ErrorKind, Invocation, JobState, new_job_id
from jobs.protocols import Interrupt
from jobs.registry import default_registry
from jobs.runner import Runner
from jobs.sealing import Sealer
from tests.engine_play import KEYS, MODULE


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner(None, default_registry, Sealer(KEYS), {}, max_result_bytes=1000)
    yield runner
    if runner._loop is not None:
        runner._loop.close()


@pytest.mark.parametrize("task", ["add", "add_async"])
def test_an_interrupt_that_comes_before_the_first_step_is_not_lost(
    runner: Runner, task: str
) -> None:
    invocation = Invocation(new_job_id(), 1, f"{MODULE}.{task}", json.dumps({"a": 1}))
    runner.expect(invocation)
    runner.interrupt(invocation.job_id, Interrupt.CANCEL)
    outcome = runner.run(invocation)
    assert outcome.state is JobState.REVOKED
    assert outcome.error is not None
    assert outcome.error.kind is ErrorKind.CANCELLED
    runner.interrupt(invocation.job_id, Interrupt.CANCEL)  # over: of no effect on the next attempt
    runner.expect(invocation)
    assert runner.run(invocation).state is JobState.SUCCESS


def test_what_was_forgotten_cannot_be_interrupted(runner: Runner) -> None:
    invocation = Invocation(new_job_id(), 1, f"{MODULE}.nothing", "{}")
    runner.expect(invocation)
    runner.forget(invocation)
    runner.interrupt(invocation.job_id, Interrupt.CANCEL)
    runner.expect(invocation)
    assert runner.run(invocation).state is JobState.SUCCESS
