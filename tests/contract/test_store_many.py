"""What every store promises of many jobs at once, of running them again, and of the length of its queue."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs.errors import JobNotFound, StoreError
from jobs.events import START
from jobs.model import ENDED, ErrorKind, Job, JobId, JobQuery, JobState, Queued, new_job_id, now_ms
from jobs.protocols import Store, Wake
from tests.store_play import (
    BACKENDS,
    Backend,
    claimed_one,
    ended,
    failure,
    ids,
    new_job,
    new_jobs,
    silence,
    until,
)

HOUR = 3_600_000  #: ms


@pytest.fixture(params=list(BACKENDS))
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    backend = BACKENDS[request.param](tmp_path)
    yield backend
    await backend.close()


@pytest.fixture
async def store(backend: Backend) -> Store:
    return await backend.open()


async def failed_one(store: Store, job: Job | None = None, **fields: object) -> Job:
    """A job that has failed at its first attempt."""
    claimed = await claimed_one(store, job)
    await store.finish([ended(claimed, JobState.FAILURE, **fields)])
    return await store.get(claimed.id)


# retry


async def test_a_retried_job_runs_again_under_its_id_with_a_new_budget(store: Store) -> None:
    job = await failed_one(store, new_job(max_attempts=3, args='{"n": 1}'))
    assert await store.retry([job.id]) == {job.id}
    waiting = await store.get(job.id)
    assert (waiting.state, waiting.attempt, waiting.attempts_spent) == (JobState.RETRY, 1, 0)
    assert (waiting.finished_at, waiting.started_at, waiting.error) == (None, None, None)
    (again,) = (await store.claim(1)).jobs
    assert (again.id, again.attempt, again.attempts_spent) == (job.id, 2, 1)
    assert (again.args, again.forgiven) == ('{"n": 1}', 1)
    assert await store.finish([ended(again)]) == {job.id}
    assert (await store.get(job.id)).state is JobState.SUCCESS
    assert [each.number for each in await store.attempts(job.id)] == [1, 2]


async def test_crashes_and_losses_before_a_retry_are_forgiven(store: Store) -> None:
    job = await failed_one(store, error=failure(ErrorKind.CRASH))
    assert job.crashes == 1
    await store.retry([job.id])
    assert (await store.get(job.id))._replace(seq=0)[14:17] == (1, 0, 0)


async def test_a_job_that_was_revoked_before_it_began_runs_for_the_first_time(store: Store) -> None:
    job = new_job(run_at=now_ms() + HOUR)
    await store.add([job])
    await store.cancel(job.id)
    assert await store.retry([job.id]) == {job.id}
    assert (await store.get(job.id)).state is JobState.PENDING
    (claimed,) = (await store.claim(1)).jobs
    assert (claimed.attempt, claimed.cancel_requested_at) == (1, None)


async def test_a_retried_job_is_not_revoked_again_for_the_expiry_that_has_passed(
    store: Store,
) -> None:
    past, ahead = new_job(expires_at=now_ms() - 1), new_job(expires_at=now_ms() + HOUR)
    await store.add([past, ahead])
    await store.reap()
    await store.cancel(ahead.id)
    await store.retry([past.id, ahead.id])
    assert await store.reap() == set()
    assert (await store.get(past.id)).expires_at is None
    assert (await store.get(ahead.id)).expires_at == ahead.expires_at


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.STARTED, JobState.SUCCESS])
async def test_what_has_not_ended_or_has_succeeded_is_not_retried(
    store: Store, state: JobState
) -> None:
    job = await claimed_one(store)
    if state is not JobState.STARTED:
        await store.finish([ended(job, state)])
    before = await store.get(job.id)
    assert await store.retry([job.id, new_job_id()]) == set()
    assert await store.get(job.id) == before


async def test_a_retried_job_says_that_its_request_is_no_longer_kept(
    backend: Backend, store: Store
) -> None:
    job = await failed_one(store, new_job(context=b"sealed", origin='{"method": "POST"}'))
    bare = await failed_one(store)
    await store.retry([job.id, bare.id])
    assert backend.context(job.id) is None
    assert (await store.get(job.id)).origin == '{"method":"POST","context":"deleted"}'
    assert (await store.get(bare.id)).origin is None


async def test_a_late_end_of_an_attempt_before_the_retry_does_not_count(store: Store) -> None:
    job = await claimed_one(store)
    await store.finish([ended(job, JobState.FAILURE)])
    await store.retry([job.id])
    (again,) = (await store.claim(1)).jobs
    assert await store.finish([ended(job)]) == set()
    assert await store.finish([ended(again)]) == {job.id}


async def test_a_retry_rings_for_work(store: Store) -> None:
    job = await failed_one(store)
    await silence(store)
    await store.retry([job.id])
    assert await until(store, Wake.WORK) == Wake.WORK


async def test_of_retries_at_the_same_time_one_counts(backend: Backend, store: Store) -> None:
    job = await failed_one(store)
    other = await backend.open()
    counted = await asyncio.gather(*(each.retry([job.id]) for each in (store, other) * 3))
    assert sorted(map(len, counted)) == [0, 0, 0, 0, 0, 1]
    assert len((await store.claim(9)).jobs) == 1


# cancel_many


async def test_many_are_cancelled_at_once_whatever_state_each_is_in(store: Store) -> None:
    running, done = await claimed_one(store), await claimed_one(store)
    await store.finish([ended(done)])
    waiting = new_jobs(3)
    await store.add(waiting)
    await silence(store)
    asked = [running.id, done.id, *ids(waiting[:2]), new_job_id()]
    assert await store.cancel_many(asked) == {running.id, *ids(waiting[:2])}
    assert await until(store, Wake.CANCEL | Wake.ENDED)
    states = await store.states([*asked, waiting[2].id])
    assert states == {
        running.id: JobState.STARTED,
        done.id: JobState.SUCCESS,
        waiting[0].id: JobState.REVOKED,
        waiting[1].id: JobState.REVOKED,
        waiting[2].id: JobState.PENDING,
    }
    assert set(await store.cancel_requests()) == {running.id}
    revoked = await store.get(waiting[0].id)
    assert revoked.error is not None
    assert revoked.error.kind is ErrorKind.CANCELLED


async def test_a_running_job_is_asked_to_stop_once(store: Store) -> None:
    job = await claimed_one(store)
    assert await store.cancel_many([job.id]) == {job.id}
    asked_at = (await store.get(job.id)).cancel_requested_at
    assert await store.cancel_many([job.id]) == set()
    assert (await store.get(job.id)).cancel_requested_at == asked_at


async def test_the_context_of_what_was_revoked_is_gone(backend: Backend, store: Store) -> None:
    job = new_job(context=b"sealed")
    await store.add([job])
    await store.cancel_many([job.id])
    assert backend.context(job.id) is None


# find by ids


@pytest.mark.parametrize("state", [None, *JobState])
async def test_jobs_are_found_by_their_ids_and_all_else_that_narrows(
    store: Store, state: JobState | None
) -> None:
    job, other = new_job(owner="me"), new_job(owner="me")
    stored = JobState.PENDING if state in (JobState.RETRY, None) else state
    await store.add([job, other])
    if state is not JobState.PENDING:
        claimed = (await store.claim(2)).jobs
        if state is not JobState.STARTED:
            await store.finish([ended(each, stored) for each in claimed])
    wanted: list[JobId] = [job.id, new_job_id()]
    found = await store.find(JobQuery(ids=wanted, state=state, owner="me"))
    assert ids(found.jobs) == [job.id]
    assert ids((await store.find(JobQuery(ids=wanted, owner="her"))).jobs) == []
    for unlike in {*ENDED, JobState.STARTED, JobState.RETRY, JobState.PENDING} - {state}:
        if state is not None:
            assert (await store.find(JobQuery(ids=wanted, state=unlike))).jobs == []


async def test_nothing_is_found_by_what_no_text_of_ours_holds(store: Store) -> None:
    job, odd = new_job(), JobId("a\0b")
    await store.add([job])
    for read in (store.get, store.attempts, store.log, store.cancel):
        with pytest.raises(JobNotFound):
            await read(odd)
    with pytest.raises(JobNotFound):
        await store.events(odd, START)
    assert await store.states([odd, job.id]) == {job.id: JobState.PENDING}
    for query in (
        JobQuery(task="\0"),
        JobQuery(queue="\0"),
        JobQuery(owner="\0"),
        JobQuery(ids=[odd]),
    ):
        assert (await store.find(query)).jobs == []
    assert await store.retry([odd]) == await store.cancel_many([odd]) == set()


# add: batches with keys


def keyed(count: int, fingerprint: str = "f") -> list[Job]:
    """A batch of jobs, each with a key of its own."""
    return [
        new_job(idempotency_key=f"k {number}", fingerprint=fingerprint) for number in range(count)
    ]


async def test_a_batch_whose_first_job_is_kept_adds_nothing(store: Store) -> None:
    batch = keyed(3)
    assert not await store.add(batch)
    longer = [*batch, new_job(idempotency_key="k 3")]
    assert list(await store.add(longer)) == ids(longer)
    assert set(await store.states(ids(longer))) == set(ids(batch))


async def test_of_batches_of_one_key_at_the_same_time_one_is_added(store: Store) -> None:
    batch = keyed(3)
    others = [[batch[0], *keyed(2)] for _ in range(4)]
    # The adds begin as they are called: they share a transaction.
    adding = [store.add(jobs) for jobs in [batch, *others]]
    kept = [await each for each in adding]
    assert [len(each) for each in kept].count(0) == 1
    assert len((await store.find(JobQuery())).jobs) == 3


async def test_many_are_added_in_their_order_but_for_those_that_are_kept(store: Store) -> None:
    jobs = [new_job(args=f'{{"n": {number}}}', context=b"%d" % number) for number in range(257)]
    known = [jobs[0], jobs[100], jobs[199], jobs[256]]
    await store.add(known)
    assert list(await store.add(jobs)) == ids(known)
    claimed = (await store.claim(1000)).jobs
    assert ids(claimed) == ids([*known, *(job for job in jobs if job not in known)])
    assert {(job.id, job.args, job.context) for job in claimed} == {
        (job.id, job.args, job.context) for job in jobs
    }


# queued


async def test_the_queue_is_counted_by_owner(store: Store) -> None:
    mine = new_jobs(2, owner="me", args='{"t": "é"}', context=b"12345")
    running = new_job(priority=9, owner="me")
    later = new_job(run_at=now_ms() + HOUR)
    await store.add([*mine, later, running])
    await store.claim(1)
    assert await store.queued() == {"me": Queued(2, 2 * (11 + 5)), None: Queued(1, 2)}


async def test_an_empty_queue_is_counted(store: Store) -> None:
    assert await store.queued() == {}
    job = await claimed_one(store)
    assert await store.queued() == {}
    await store.finish([ended(job, JobState.PENDING)])
    assert (await store.queued())[None].jobs == 1


async def test_a_closed_store_says_so(backend: Backend, store: Store) -> None:
    await backend.die(store)
    for act in (store.retry, store.cancel_many):
        with pytest.raises(StoreError):
            await act([new_job_id()])
    with pytest.raises(StoreError):
        await store.queued()
