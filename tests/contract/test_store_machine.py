"""A store against a plain model of it: whatever is done, by whichever of two claimants, in any order.

The model says in Python what `Store` promises, and the store's SQL says it again: the two have to come
to the same. Where they differ, hypothesis shows a way there.
"""

import asyncio
import tempfile
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.errors import JobNotFound
from jobs.model import ErrorKind, Job, JobId, JobQuery, JobState, Outcome, new_job_id, now_ms
from jobs.protocols import Store
from tests.store_play import BACKENDS, Backend, ended, failure, invocations, new_job

R = TypeVar("R")

HOUR = 3_600_000  #: ms
MAX_LOST = 3
EXAMPLES, STEPS = {"sqlite": 50, "postgres": 25}, 40

PENDING, STARTED, REVOKED = JobState.PENDING, JobState.STARTED, JobState.REVOKED

# No time is so near that the clock could pass it while a test runs.
times = st.sampled_from([None, None, -HOUR, HOUR]).map(lambda by: by and now_ms() + by)
options = st.fixed_dictionaries(
    {"priority": st.integers(-1, 1)}, optional={"run_at": times, "expires_at": times}
).map(lambda drawn: drawn | {"context": b"sealed"})
claimants = st.integers(0, 1)
limits = st.sampled_from([4, 4, 1, 0])
picks = st.integers(0, 9)
some = st.sets(st.integers(0, 4), min_size=1, max_size=3)
rarely = st.sampled_from([False, False, True])
errors = st.sampled_from([ErrorKind.EXCEPTION, ErrorKind.CRASH, ErrorKind.LOST, ErrorKind.TIMEOUT])
endings = st.sampled_from([PENDING, PENDING, JobState.SUCCESS, JobState.FAILURE, REVOKED])


class Model:
    """The jobs of a store, in the order they were added, and who has died."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, Job] = {}
        self.dead: set[str] = set()

    @property
    def running(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.stored_state is STARTED]

    def add(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.jobs.setdefault(job.id, job)

    def claim(self, me: str, limit: int) -> list[Job]:
        ready = [
            job
            for job in self.jobs.values()
            if job.stored_state is PENDING and not _ahead(job.run_at) and not _past(job.expires_at)
        ]
        ready.sort(key=lambda job: -job.priority)
        return [
            self._now(
                job, stored_state=STARTED, attempt=job.attempt + 1, claimed_by=me, started_at=1
            )
            for job in ready[:limit]
        ]

    @property
    def next_due(self) -> int | None:
        waiting = (job for job in self.jobs.values() if job.stored_state is PENDING)
        return min(
            (job.run_at for job in waiting if job.run_at and _ahead(job.run_at)), default=None
        )

    def finish(self, me: str, outcome: Outcome) -> bool:
        job = self._held(me, outcome.job_id, outcome.attempt)
        if job is None:
            return False
        kind = outcome.error.kind if outcome.error else None
        job = job._replace(
            crashes=job.crashes + (kind is ErrorKind.CRASH),
            lost=job.lost + (kind is ErrorKind.LOST),
        )
        if outcome.state is not PENDING:
            self._end(job, outcome.state, outcome.error, outcome.result)
        elif job.cancel_requested_at:
            self._end(job, REVOKED, failure(ErrorKind.CANCELLED))
        else:
            self._again(job, error=outcome.error, run_at=outcome.run_at)
        return True

    def release(self, me: str, job_id: JobId, attempt: int) -> None:
        job = self._held(me, job_id, attempt)
        if job is None:
            return
        job = job._replace(attempt=attempt - 1)
        if job.cancel_requested_at:
            self._end(job, REVOKED, failure(ErrorKind.CANCELLED), started=False)
        else:
            self._again(job)

    def cancel(self, job_id: JobId) -> JobState:
        job = self.jobs[job_id]
        if job.stored_state is PENDING:
            asked = job._replace(cancel_requested_at=1)
            self._end(asked, REVOKED, failure(ErrorKind.CANCELLED))
        elif job.stored_state is STARTED:
            self._now(job, cancel_requested_at=1)
        return job.state

    def cancel_many(self, job_ids: Collection[JobId]) -> set[JobId]:
        open_ = {
            job.id
            for job in (self.jobs[job_id] for job_id in job_ids if job_id in self.jobs)
            if not job.state.ended and not job.cancel_requested_at
        }
        for job_id in open_:
            self.cancel(job_id)
        return open_

    def retry(self, job_ids: Collection[JobId]) -> set[JobId]:
        jobs = [self.jobs[job_id] for job_id in job_ids if job_id in self.jobs]
        again = [job for job in jobs if job.stored_state in (JobState.FAILURE, REVOKED)]
        for job in again:
            self._again(
                job,
                error=None,
                run_at=None,
                expires_at=None if _past(job.expires_at) else job.expires_at,
                cancel_requested_at=None,
                context=None,
                finished_at=None,
                forgiven=job.attempt,
                crashes=0,
                lost=0,
            )
        return {job.id for job in again}

    def queued(self) -> int:
        return len([job for job in self.jobs.values() if job.stored_state is PENDING])

    def reap(self) -> set[JobId]:
        open_ = [job for job in self.jobs.values() if not job.state.ended]
        for job in open_:
            if job.stored_state is STARTED and job.claimed_by in self.dead:
                job = job._replace(lost=job.lost + 1)
                if job.cancel_requested_at:
                    self._end(job, REVOKED, failure(ErrorKind.CANCELLED))
                elif job.lost >= MAX_LOST:
                    self._end(job, JobState.FAILURE, failure(ErrorKind.LOST))
                else:
                    self._again(job, error=failure(ErrorKind.LOST))
            job = self.jobs[job.id]
            if job.stored_state is PENDING and _past(job.expires_at):
                self._end(job, REVOKED, failure(ErrorKind.EXPIRED))
        return {job.id for job in open_ if self.jobs[job.id].state.ended}

    def _held(self, me: str, job_id: JobId, attempt: int) -> Job | None:
        job = self.jobs.get(job_id)
        held = job and (job.stored_state, job.claimed_by, job.attempt) == (STARTED, me, attempt)
        return job if held else None

    def _end(
        self, job: Job, state: JobState, error: Any, result: str | None = None, started: bool = True
    ) -> None:
        self._now(
            job,
            stored_state=state,
            error=error,
            result=result,
            claimed_by=None,
            finished_at=1,
            started_at=job.started_at if started else None,
        )

    def _again(self, job: Job, **fields: Any) -> None:
        self._now(job, stored_state=PENDING, claimed_by=None, started_at=None, **fields)

    def _now(self, job: Job, **fields: Any) -> Job:
        self.jobs[job.id] = job = job._replace(**fields)
        return job


def _ahead(time: int | None) -> bool:
    return time is not None and time > now_ms()


def _past(time: int | None) -> bool:
    return time is not None and time <= now_ms()


def _standing(job: Job) -> dict[str, Any]:
    """What store and model have to agree on; of a time that the store sets, whether it is there."""
    fields = job._asdict()
    for name in ("seq", "args", "context", "result"):  # not listed, or the store's own
        del fields[name]
    for name in ("started_at", "finished_at", "cancel_requested_at"):
        fields[name] = fields[name] is not None
    fields["error"] = job.error and job.error.kind
    return fields


class Machine(RuleBasedStateMachine):
    """Two stores on one database, and the model."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._backend, self._runner = backend, asyncio.Runner()
        self._model = Model()
        self._stores: list[Store] = []
        self._claimed: list[Job] = []  #: every attempt, as its claim has brought it
        self._known = [new_job_id()]  #: ids, one of them of no job

    def _do(self, work: Coroutine[Any, Any, R]) -> R:
        return self._runner.run(work)

    def teardown(self) -> None:
        self._do(self._backend.close())
        self._runner.close()

    @initialize(by=claimants, jobs=st.lists(options, min_size=1, max_size=3))
    def open(self, by: int, jobs: Any) -> None:
        self._stores = [self._do(self._backend.open()) for _ in range(2)]
        self._add(by, [new_job(**each) for each in jobs])
        self.claim(by, limit=4)

    def _attempts(self, picks: set[int]) -> list[Job]:
        """Some of the attempts; the lower a pick, the later they were claimed."""
        return [self._claimed[-1 - pick] for pick in picks if pick < len(self._claimed)]

    def _teller(self, jobs: list[Job], wrong: bool) -> Store:
        """The store that claimed the first of them, or the other."""
        mine = bool(jobs) and jobs[0].claimed_by == self._stores[1].claimant
        return self._stores[mine != wrong]

    # --- what is done

    # Hypothesis leaves out some rules of every example: what all else depends on is part of several.

    @rule(
        by=claimants,
        jobs=st.lists(options, min_size=1, max_size=3),
        again=picks,
        twice=rarely,
        limit=limits,
    )
    def add_and_claim(self, by: int, jobs: Any, again: int, twice: bool, limit: int) -> None:
        new = [new_job(**each) for each in jobs]
        if again < len(self._known):
            new.insert(0, new_job(id=self._known[-1 - again], args='{"again": true}', priority=9))
        if twice:
            new.append(new[0]._replace(priority=9))
        self._add(by, new)
        self.claim(by, limit)

    def _add(self, by: int, jobs: list[Job]) -> None:
        self._do(_added(self._stores[by], jobs))
        self._model.add(jobs)
        self._known += [job.id for job in jobs]

    @rule(by=claimants, limit=limits)
    def claim(self, by: int, limit: int) -> None:
        store = self._stores[by]
        claim = self._do(store.claim(limit))
        expected = self._model.claim(store.claimant, limit)
        assert [_standing(job) for job in claim.jobs] == [_standing(job) for job in expected]
        assert [job.args for job in claim.jobs] == [job.args for job in expected]
        assert [job.context for job in claim.jobs] == [job.context for job in expected]
        assert claim.next_due == self._model.next_due
        self._claimed += claim.jobs

    @precondition(lambda self: self._claimed)
    @rule(which=some, wrong=rarely, state=endings, kind=errors, run_at=times)
    def finish(
        self, which: set[int], wrong: bool, state: JobState, kind: ErrorKind, run_at: int | None
    ) -> None:
        jobs = self._attempts(which)
        store = self._teller(jobs, wrong)
        more: dict[str, Any] = {} if state is JobState.SUCCESS else {"error": failure(kind)}
        if state is PENDING:
            more["run_at"] = run_at
        outcomes = [ended(job, state, **more) for job in jobs]
        counted = {each.job_id for each in outcomes if self._model.finish(store.claimant, each)}
        assert self._do(store.finish(outcomes)) == counted

    @precondition(lambda self: self._claimed)
    @rule(which=some, wrong=rarely)
    def release(self, which: set[int], wrong: bool) -> None:
        jobs = self._attempts(which)
        store = self._teller(jobs, wrong)
        self._do(store.release(invocations(*jobs)))
        for job in jobs:
            self._model.release(store.claimant, job.id, job.attempt)

    @rule(by=claimants, pick=picks)
    def cancel(self, by: int, pick: int) -> None:
        job_id = self._known[-1 - min(pick, len(self._known) - 1)]
        if job_id in self._model.jobs:
            assert self._do(self._stores[by].cancel(job_id)) is self._model.cancel(job_id)
        else:
            with pytest.raises(JobNotFound):
                self._do(self._stores[by].cancel(job_id))

    def _picked(self, picks: set[int]) -> list[JobId]:
        return [self._known[-1 - pick] for pick in picks if pick < len(self._known)]

    @rule(by=claimants, which=some)
    def cancel_many(self, by: int, which: set[int]) -> None:
        job_ids = self._picked(which)
        expected = self._model.cancel_many(job_ids)
        assert self._do(self._stores[by].cancel_many(job_ids)) == expected

    @rule(by=claimants, which=some, limit=limits)
    def retry(self, by: int, which: set[int], limit: int) -> None:
        job_ids = self._picked(which)
        assert self._do(self._stores[by].retry(job_ids)) == self._model.retry(job_ids)
        self.claim(by, limit)

    @precondition(lambda self: self._model.running)
    @rule(by=claimants, heir=claimants, limit=limits)
    def die_and_reap(self, by: int, heir: int, limit: int) -> None:
        self._model.dead.add(self._stores[by].claimant)
        self._do(self._backend.die(self._stores[by]))
        self._stores[by] = self._do(self._backend.open())
        self.reap(heir)
        self.claim(heir, limit)

    @rule(by=claimants)
    def reap(self, by: int) -> None:
        assert self._do(self._stores[by].reap()) == self._model.reap()

    @rule(by=claimants, limit=st.integers(1, 3), long_ago=rarely)
    def prune(self, by: int, limit: int, long_ago: bool) -> None:
        ended = {job.id for job in self._model.jobs.values() if job.state.ended}
        before = now_ms() + (-HOUR if long_ago else HOUR)
        count = self._do(self._stores[by].prune(before, limit))
        assert count == (0 if long_ago else min(limit, len(ended)))
        gone = self._model.jobs.keys() - self._do(self._stores[by].states(self._model.jobs))
        assert len(gone) == count
        assert gone <= ended
        for job_id in gone:
            del self._model.jobs[job_id]

    # --- what is seen

    @rule(by=claimants, pick=picks)
    def get(self, by: int, pick: int) -> None:
        job_id = self._known[-1 - min(pick, len(self._known) - 1)]
        expected = self._model.jobs.get(job_id)
        if expected is None:
            with pytest.raises(JobNotFound):
                self._do(self._stores[by].get(job_id))
            return
        job = self._do(self._stores[by].get(job_id))
        assert _standing(job) == _standing(expected)
        assert (job.args, job.result) == (expected.args, expected.result)
        kept = self._backend.context(job_id)
        assert kept == (None if expected.state.ended else expected.context)

    @rule(by=claimants, state=st.sampled_from(JobState), limit=st.integers(1, 4))
    def find(self, by: int, state: JobState, limit: int) -> None:
        page = self._do(self._stores[by].find(JobQuery(state=state, limit=limit)))
        expected = [job.id for job in reversed(self._model.jobs.values()) if job.state is state]
        assert [job.id for job in page.jobs] == expected[:limit]

    @invariant()
    def agree(self) -> None:
        if not self._stores:
            return
        jobs = self._model.jobs
        for store in self._stores:
            page = self._do(store.find(JobQuery(limit=1000)))
            assert [_standing(job) for job in page.jobs] == [
                _standing(job) for job in reversed(jobs.values())
            ]
            assert set(self._do(store.cancel_requests())) == {
                job.id
                for job in self._model.running
                if job.claimed_by == store.claimant and job.cancel_requested_at
            }
        queued = self._do(self._stores[0].queued())
        assert sum(each.jobs for each in queued.values()) == self._model.queued()
        states = self._do(self._stores[0].states(jobs))
        assert states == {job.id: job.state for job in jobs.values()}


async def _added(store: Store, jobs: Sequence[Job]) -> None:
    await store.add(jobs)


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_the_store_does_what_the_model_does(backend: str, tmp_path: Path) -> None:
    make: Callable[[Path], Backend] = BACKENDS[backend]
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Machine(make(Path(tempfile.mkdtemp(dir=tmp_path)))),
        settings=settings(
            max_examples=EXAMPLES[backend],
            stateful_step_count=STEPS,
            phases=[Phase.generate],  # shrinking takes minutes: add Phase.shrink to see less
            suppress_health_check=list(HealthCheck),
        ),
    )
