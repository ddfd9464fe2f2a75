"""What every store promises, written once against the protocol and run on each implementation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import JobNotFound, StoreError
from jobs.keys import Scope, new_key
from jobs.model import (
    TRANSITIONS,
    AttemptEnd,
    AttemptRecord,
    ErrorKind,
    Job,
    JobId,
    JobQuery,
    JobState,
    Usage,
    new_job_id,
    now_ms,
)
from jobs.protocols import Store, Wake
from tests.store_play import (
    BACKENDS,
    PATIENCE,
    Backend,
    add,
    claimed_one,
    ended,
    failure,
    ids,
    invocations,
    new_job,
    new_jobs,
    past,
    silence,
    until,
)

HOUR = 3_600_000  #: ms
MAX_LOST = 3


@pytest.fixture(params=list(BACKENDS))
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    backend = BACKENDS[request.param](tmp_path)
    yield backend
    await backend.close()


@pytest.fixture
async def store(backend: Backend) -> Store:
    return await backend.open()


# add, get


async def test_a_job_comes_back_as_it_was_added(store: Store) -> None:
    job = new_job(
        args='{"text": "Grüße, 世界 🙂"}',
        queue="mail",
        priority=-3,
        max_attempts=4,
        timeout=2.5,
        run_at=now_ms() + HOUR,
        expires_at=now_ms() + 2 * HOUR,
        context=b"\0sealed\xff",
        origin='{"method": "POST"}',
    )
    await store.add([job])
    kept = await store.get(job.id)
    assert kept == job._replace(seq=kept.seq, context=None)
    assert kept.state is JobState.PENDING


async def test_a_job_is_kept_with_the_defaults_of_a_job(store: Store) -> None:
    job = Job(id=new_job_id(), task="t", created_at=1)
    await store.add([job])
    kept = await store.get(job.id)
    assert kept == job._replace(seq=kept.seq)


async def test_jobs_survive_the_store(backend: Backend, store: Store) -> None:
    job = await claimed_one(store)
    await store.finish([ended(job, result="[1, 2]")])
    await backend.die(store)
    assert (await (await backend.open()).get(job.id)).result == "[1, 2]"


async def test_jobs_are_numbered_in_the_order_they_were_added(store: Store) -> None:
    jobs = new_jobs(5)
    await store.add(jobs[:3])
    await store.add(jobs[3:])
    numbers = [(await store.get(job.id)).seq for job in jobs]
    assert numbers == sorted(set(numbers))


async def test_a_number_is_not_given_twice(store: Store) -> None:
    job = await claimed_one(store)
    await store.finish([ended(job)])
    assert await store.prune(now_ms() + HOUR) == 1
    later = new_job()
    await store.add([later])
    assert (await store.get(later.id)).seq > job.seq


async def test_adding_nothing_is_no_error(store: Store) -> None:
    await store.add([])


async def test_adding_an_id_again_changes_nothing(store: Store) -> None:
    job = new_job(args='{"n": 1}', context=b"first")
    assert not await store.add([job])
    (before,) = (await store.claim(1)).jobs
    other = new_job()
    again = [job._replace(args='{"n": 2}', context=b"second"), other, other]
    assert list(await store.add(again)) == [job.id, other.id]
    assert (await store.get(job.id)).args == '{"n": 1}'
    await store.release(invocations(before))
    claimed = (await store.claim(9)).jobs
    assert [(one.id, one.args, one.context) for one in claimed] == [
        (job.id, '{"n": 1}', b"first"),
        (other.id, "{}", None),
    ]


async def test_an_add_that_fails_keeps_none_of_its_jobs_and_all_of_its_neighbours(
    store: Store,
) -> None:
    good, bad, neighbours = new_jobs(2), new_job(max_attempts=0), new_jobs(5)
    results = await asyncio.gather(
        *(store.add([job]) for job in neighbours[:3]),
        store.add([*good, bad]),
        *(store.add([job]) for job in neighbours[3:]),
        return_exceptions=True,
    )
    assert isinstance(results[3], StoreError)
    assert [result for result in results if result != ()] == [results[3]]
    assert set(await store.states([*ids(good), bad.id, *ids(neighbours)])) == set(ids(neighbours))


async def test_many_tasks_add_at_the_same_time(store: Store) -> None:
    jobs = new_jobs(300)
    await asyncio.gather(*(store.add([job]) for job in jobs))
    assert ids((await store.claim(1000)).jobs) == ids(jobs)


async def test_an_unknown_id_is_not_found(store: Store) -> None:
    unknown = new_job_id()
    for look in (store.get, store.cancel, store.attempts, store.log):
        with pytest.raises(JobNotFound) as caught:
            await look(unknown)
        assert caught.value.job_id == unknown
    assert await store.states([unknown]) == {}


# find, states


@pytest.mark.parametrize("state", [None, JobState.SUCCESS, JobState.PENDING])
async def test_the_jobs_of_one_owner_are_found_apart(store: Store, state: JobState | None) -> None:
    mine, hers = new_jobs(3, owner="me"), new_jobs(3, owner="her")
    await store.add([job for pair in zip(mine, hers, strict=True) for job in pair])
    if state is JobState.SUCCESS:
        await store.finish([ended(job) for job in (await store.claim(6)).jobs])
    query = JobQuery(owner="me", state=state, limit=2)
    page = await store.find(query)
    assert ids(page.jobs) == ids(mine[:0:-1])
    rest = await store.find(replace(query, before_seq=page.next_seq))
    assert ids(rest.jobs) == ids(mine[:1])
    assert rest.next_seq is None


async def test_jobs_are_listed_newest_first_without_what_is_long(store: Store) -> None:
    jobs = new_jobs(3, args='{"n": 1}', context=b"x", origin='{"method": "POST"}')
    await store.add(jobs)
    (one,) = (await store.claim(1)).jobs
    await store.finish([ended(one, JobState.FAILURE)])
    page = await store.find(JobQuery())
    assert ids(page.jobs) == ids(reversed(jobs))
    assert page.next_seq is None
    for listed in page.jobs:
        assert listed == (await store.get(listed.id))._replace(args="{}", result=None)
    assert page.jobs[2].error == failure()


async def test_a_list_is_read_page_by_page_while_jobs_are_added(store: Store) -> None:
    jobs = new_jobs(7)
    await store.add(jobs)
    seen: list[JobId] = []
    query = JobQuery(limit=3)
    while True:
        page = await store.find(query)
        seen += ids(page.jobs)
        await store.add([new_job()])
        if page.next_seq is None:
            break
        query = replace(query, before_seq=page.next_seq)
    assert seen == ids(reversed(jobs))


async def test_a_page_that_is_just_full_is_the_last(store: Store) -> None:
    await store.add(new_jobs(3))
    assert (await store.find(JobQuery(limit=3))).next_seq is None


async def one_of_each(store: Store) -> dict[JobState, Job]:
    """A job in each state, as shown."""
    made = {}
    for state in (JobState.SUCCESS, JobState.FAILURE, JobState.REVOKED, JobState.RETRY):
        job = await claimed_one(store)
        stored = JobState.PENDING if state is JobState.RETRY else state
        await store.finish([ended(job, stored, run_at=now_ms() + HOUR)])
        made[state] = job
    made[JobState.STARTED] = await claimed_one(store)
    made[JobState.PENDING] = new_job()
    await store.add([made[JobState.PENDING]])
    return made


@pytest.mark.parametrize("state", list(JobState))
async def test_a_list_is_narrowed_to_a_state(store: Store, state: JobState) -> None:
    made = await one_of_each(store)
    page = await store.find(JobQuery(state=state))
    assert ids(page.jobs) == [made[state].id]
    assert page.jobs[0].state is state


async def test_states_are_the_shown_ones(store: Store) -> None:
    made = await one_of_each(store)
    assert await store.states([*ids(made.values()), new_job_id()]) == {
        job.id: state for state, job in made.items()
    }


async def test_a_list_is_narrowed_by_task_queue_and_time_all_at_once(store: Store) -> None:
    wanted = [new_job(task="a", queue="q", created_at=at) for at in (1000, 1999)]
    others = [
        new_job(task="a", queue="q", created_at=999),
        new_job(task="a", queue="q", created_at=2000),
        new_job(task="b", queue="q", created_at=1500),
        new_job(task="a", queue="p", created_at=1500),
    ]
    await store.add([*wanted, *others])
    query = JobQuery(task="a", queue="q", created_after=1000, created_before=2000)
    assert ids((await store.find(query)).jobs) == ids(reversed(wanted))
    assert ids((await store.find(replace(query, task="none"))).jobs) == []
    assert len((await store.find(replace(query, state=JobState.PENDING))).jobs) == 2


# claim


async def test_a_claim_takes_the_highest_priority_first_then_the_oldest(store: Store) -> None:
    low, first, second, high = (new_job(priority=priority) for priority in (-1, 0, 0, 7))
    await store.add([low, first])
    await store.add([second, high])
    assert ids((await store.claim(3)).jobs) == ids([high, first, second])
    assert ids((await store.claim(3)).jobs) == [low.id]
    assert (await store.claim(3)).jobs == []


async def test_a_claim_starts_the_attempt_and_brings_the_job_whole(store: Store) -> None:
    before = now_ms()
    job = new_job(args="[1]", context=b"sealed", timeout=1.5, max_attempts=2, origin="{}")
    await store.add([job])
    (got,) = (await store.claim(1)).jobs
    assert got.context == b"sealed"
    assert got._replace(context=None) == await store.get(job.id)
    assert (got.stored_state, got.attempt, got.claimed_by) == (JobState.STARTED, 1, store.claimant)
    assert got.started_at is not None
    assert before <= got.started_at <= now_ms()


async def test_a_claim_of_nothing_takes_nothing(store: Store) -> None:
    await store.add([new_job()])
    assert (await store.claim(0)).jobs == []


async def test_a_job_is_not_claimed_before_its_time(store: Store) -> None:
    due = now_ms() + 150
    early, late = new_job(run_at=due), new_job(run_at=due + HOUR)
    await store.add([late, early])
    claim = await store.claim(9)
    assert (claim.jobs, claim.next_due) == ([], due)
    await past(due)
    claim = await store.claim(9)
    assert ids(claim.jobs) == [early.id]
    assert claim.next_due == due + HOUR


async def test_a_job_whose_time_has_passed_waits_its_turn_like_any_other(store: Store) -> None:
    now, past = new_job(), new_job(run_at=now_ms() - HOUR)
    await store.add([now, past])
    claim = await store.claim(9)
    assert ids(claim.jobs) == ids([now, past])
    assert claim.next_due is None


async def test_an_expired_job_is_not_claimed(store: Store) -> None:
    expired, lasting = new_job(expires_at=now_ms() - 1), new_job(expires_at=now_ms() + HOUR)
    await store.add([expired, lasting])
    assert ids((await store.claim(9)).jobs) == [lasting.id]


async def test_no_job_is_claimed_twice(backend: Backend) -> None:
    stores = [await backend.open() for _ in range(3)]
    jobs = new_jobs(200)
    await asyncio.gather(*(stores[n % 3].add([job]) for n, job in enumerate(jobs)))

    async def take(store: Store) -> list[JobId]:
        mine: list[JobId] = []
        while got := (await store.claim(7)).jobs:
            mine += ids(got)
        return mine

    taken = await asyncio.gather(*(take(store) for store in stores for _ in range(2)))
    assert sorted(job_id for mine in taken for job_id in mine) == sorted(ids(jobs))


async def test_what_was_claimed_for_a_caller_that_has_gone_is_given_back(store: Store) -> None:
    jobs = new_jobs(3)
    await store.add(jobs)
    for turns in range(6):
        claiming = asyncio.create_task(store.claim(9))
        for _ in range(turns):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait({claiming})
        assert claiming.cancelled()
    async with asyncio.timeout(PATIENCE):
        while not (claim := await store.claim(9)).jobs:
            pass
    assert ids(claim.jobs) == ids(jobs)
    assert [job.attempt for job in claim.jobs] == [1, 1, 1]


# publish, claim_these, unpublish


async def test_a_published_job_is_pending_and_hidden_from_those_who_claim(store: Store) -> None:
    low, high = new_job(args='{"n": 1}'), new_job(priority=1, context=b"sealed")
    await store.add([low, high])
    out = await store.publish(9, now_ms() + HOUR)
    assert ids(out.jobs) == [high.id, low.id]
    assert [(job.attempt, job.args, job.context) for job in out.jobs] == [(0, "{}", None)] * 2
    assert (await store.get(low.id)).state is JobState.PENDING
    assert not (await store.claim(9)).jobs
    assert not (await store.publish(9, now_ms() + HOUR)).jobs


async def test_publishing_takes_at_most_the_limit_and_only_what_is_due(store: Store) -> None:
    due = now_ms() + HOUR
    jobs = new_jobs(3)
    await store.add([*jobs, new_job(run_at=due)])
    assert ids((await store.publish(2, due + HOUR)).jobs) == ids(jobs[:2])
    rest = await store.publish(2, due + HOUR)
    assert (ids(rest.jobs), rest.next_due) == (ids(jobs[2:]), due)


async def test_a_published_job_is_claimed_by_its_id_and_next_attempt(store: Store) -> None:
    job = new_job(args='{"n": 1}', context=b"sealed")
    await store.add([job])
    await store.publish(1, now_ms() + HOUR)
    assert not (await store.claim_these([(job.id, 2), (new_job_id(), 1)])).jobs
    (claimed,) = (await store.claim_these([(job.id, 1)])).jobs
    assert (claimed.state, claimed.attempt) == (JobState.STARTED, 1)
    assert (claimed.args, claimed.context) == ('{"n": 1}', b"sealed")
    assert claimed.claimed_by == store.claimant
    assert await store.finish([ended(claimed)]) == {job.id}


async def test_of_two_claims_by_id_one_is_given_the_job(backend: Backend, store: Store) -> None:
    other = await backend.open()
    job = new_job()
    await store.add([job])
    await store.publish(1, now_ms() + HOUR)
    claims = await asyncio.gather(
        *(each.claim_these([(job.id, 1)]) for each in (store, other, store, other))
    )
    assert sum(len(claim.jobs) for claim in claims) == 1


async def test_a_job_that_was_not_published_can_be_claimed_by_its_id(store: Store) -> None:
    job, later = new_job(), new_job(run_at=now_ms() + HOUR)
    await store.add([job, later])
    assert ids((await store.claim_these([(job.id, 1), (later.id, 1)])).jobs) == [job.id]


async def test_a_job_that_has_ended_or_expired_is_not_claimed_by_its_id(store: Store) -> None:
    soon = now_ms() + 50
    revoked, expired = new_job(), new_job(expires_at=soon)
    await store.add([revoked, expired])
    await store.publish(2, now_ms() + HOUR)
    await store.cancel(revoked.id)
    await past(soon)
    assert not (await store.claim_these([(revoked.id, 1), (expired.id, 1)])).jobs
    assert await store.reap() == {expired.id}


async def test_a_job_that_comes_back_is_published_again(store: Store) -> None:
    job = new_job()
    await store.add([job])
    for attempt in (1, 2):
        await store.publish(1, now_ms() + HOUR)
        (claimed,) = (await store.claim_these([(job.id, attempt)])).jobs
        await store.finish([ended(claimed, JobState.PENDING, run_at=now_ms())])
    (again,) = (await store.publish(1, now_ms() + HOUR)).jobs
    (claimed,) = (await store.claim_these([(job.id, again.attempt + 1)])).jobs
    await store.release(invocations(claimed))
    assert ids((await store.publish(1, now_ms() + HOUR)).jobs) == [job.id]


async def test_what_was_published_shows_again_after_its_time(store: Store) -> None:
    job, soon = new_job(), now_ms() + 50
    await store.add([job])
    assert (await store.publish(1, soon)).next_due == soon
    await past(soon)
    assert ids((await store.publish(1, now_ms() + HOUR)).jobs) == [job.id]


async def test_what_a_broker_has_lost_is_unpublished_by_queue_and_time(store: Store) -> None:
    mail, other, fresh = new_job(queue="mail"), new_job(), new_job(queue="mail")
    hidden = now_ms() + HOUR
    await store.add([mail, other])
    await store.publish(9, hidden)
    await store.add([fresh])
    await store.publish(9, hidden + 1)
    assert await store.published() == {"mail": 2, "default": 1}
    await store.unpublish("mail", hidden + 1)
    assert await store.published() == {"mail": 1, "default": 1}
    assert ids((await store.claim(9)).jobs) == [mail.id]


async def test_unpublishing_rings(store: Store) -> None:
    await store.add([new_job()])
    await store.publish(1, now_ms() + HOUR)
    await silence(store)
    await store.unpublish("default", now_ms() + 2 * HOUR)
    await until(store, Wake.WORK)


# finish


async def test_a_result_is_kept_as_it_was_written(store: Store) -> None:
    job = await claimed_one(store)
    outcome = ended(job, result='{"a":  1.0, "ü": "🙂"}', started_at=123, finished_at=456)
    assert await store.finish([outcome]) == {job.id}
    kept = await store.get(job.id)
    assert kept.state is JobState.SUCCESS
    assert (kept.result, kept.error) == ('{"a":  1.0, "ü": "🙂"}', None)
    assert (kept.started_at, kept.finished_at, kept.claimed_by) == (123, 456, None)


async def test_an_end_without_times_is_timed_by_the_store(store: Store) -> None:
    job = await claimed_one(store)
    await store.finish([ended(job)])
    kept = await store.get(job.id)
    assert kept.started_at == job.started_at
    assert job.started_at is not None
    assert kept.finished_at is not None
    assert job.started_at <= kept.finished_at <= now_ms()


@pytest.mark.parametrize("state", [JobState.FAILURE, JobState.REVOKED])
async def test_an_error_is_kept_whatever_it_says(store: Store, state: JobState) -> None:
    job = await claimed_one(store)
    error = failure(ErrorKind.TIMEOUT, message="odd: \0 \ud800 \"'\\ 🙂\n")
    await store.finish([ended(job, state, error=error)])
    kept = await store.get(job.id)
    assert (kept.state, kept.error, kept.result) == (state, error, None)


@pytest.mark.parametrize("state", [JobState.SUCCESS, JobState.FAILURE, JobState.REVOKED])
async def test_the_context_is_purged_with_the_end_of_a_job(
    backend: Backend, store: Store, state: JobState
) -> None:
    job = await claimed_one(store, new_job(context=b"secret"))
    assert backend.context(job.id) == b"secret"
    await store.finish([ended(job, state)])
    assert backend.context(job.id) is None


async def test_many_outcomes_are_recorded_at_once(store: Store) -> None:
    await store.add(new_jobs(50))
    jobs = (await store.claim(50)).jobs
    outcomes = [ended(job, result=str(n)) for n, job in enumerate(jobs)]
    assert await store.finish(list(reversed(outcomes))) == set(ids(jobs))
    assert [(await store.get(job.id)).result for job in jobs] == [str(n) for n in range(50)]


async def test_finishing_nothing_is_no_error(store: Store) -> None:
    assert await store.finish([]) == set()


async def test_an_outcome_counts_only_from_the_claimant_and_for_the_attempt(
    backend: Backend, store: Store
) -> None:
    other = await backend.open()
    first, pending = await claimed_one(store), new_job()
    await store.finish([ended(first, JobState.PENDING)])
    (second,) = (await store.claim(1)).jobs
    await store.add([pending])
    before = await store.get(second.id)
    assert await store.finish([ended(first), ended(second._replace(attempt=3))]) == set()
    assert await other.finish([ended(second)]) == set()
    assert await store.finish([ended(pending), ended(new_job())]) == set()
    assert await store.get(second.id) == before
    assert await store.finish([ended(first, JobState.FAILURE), ended(second)]) == {second.id}
    assert (await store.get(second.id)).state is JobState.SUCCESS
    assert (await store.get(pending.id)).state is JobState.PENDING


async def test_only_the_first_outcome_of_an_attempt_counts(store: Store) -> None:
    job = await claimed_one(store)
    finished = await asyncio.gather(
        store.finish([ended(job)]), store.finish([ended(job, JobState.FAILURE)])
    )
    assert finished == [{job.id}, set()]
    before = await store.get(job.id)
    assert before.state is JobState.SUCCESS
    assert await store.finish([ended(job, JobState.FAILURE)]) == set()
    assert await store.get(job.id) == before


async def test_a_job_runs_again_at_its_time_with_its_context_and_its_last_error(
    store: Store,
) -> None:
    job = await claimed_one(store, new_job(context=b"sealed"))
    at = now_ms() + HOUR
    outcome = ended(job, JobState.FAILURE, finished_at=now_ms()).again(at)
    assert await store.finish([outcome]) == {job.id}
    kept = await store.get(job.id)
    assert (kept.state, kept.stored_state) == (JobState.RETRY, JobState.PENDING)
    assert (kept.attempt, kept.run_at, kept.error) == (1, at, failure())
    assert (kept.started_at, kept.finished_at, kept.claimed_by) == (None, None, None)
    assert await store.claim(1) == type(await store.claim(1))([], at)

    soon = await claimed_one(store, new_job(context=b"sealed"))
    await store.finish([ended(soon, JobState.FAILURE).again(now_ms())])
    (second,) = (await store.claim(1)).jobs
    assert (second.id, second.attempt, second.context) == (soon.id, 2, b"sealed")
    assert second.error == failure()
    await store.finish([ended(second)])
    assert (await store.get(soon.id)).error is None


async def test_crashes_and_losses_are_counted(store: Store) -> None:
    job = await claimed_one(store)
    for kind in (ErrorKind.CRASH, ErrorKind.LOST, ErrorKind.CRASH, ErrorKind.EXCEPTION):
        await store.finish([ended(job, JobState.FAILURE, error=failure(kind)).again(now_ms())])
        (job,) = (await store.claim(1)).jobs
    assert (job.attempt, job.crashes, job.lost, job.attempts_spent) == (5, 2, 1, 2)
    await store.finish([ended(job, JobState.FAILURE, error=failure(ErrorKind.CRASH))])
    assert (await store.get(job.id)).crashes == 3


async def test_a_job_that_was_to_run_again_but_was_asked_to_stop_is_revoked(
    backend: Backend, store: Store
) -> None:
    job = await claimed_one(store, new_job(context=b"secret"))
    await store.cancel(job.id)
    assert await store.finish([ended(job, JobState.FAILURE).again(now_ms() + HOUR)]) == {job.id}
    kept = await store.get(job.id)
    assert (kept.state, kept.claimed_by) == (JobState.REVOKED, None)
    assert kept.error is not None
    assert kept.error.kind is ErrorKind.CANCELLED
    assert kept.finished_at is not None
    assert backend.context(job.id) is None


@pytest.mark.parametrize("state", [JobState.SUCCESS, JobState.FAILURE, JobState.REVOKED])
async def test_an_end_that_came_before_the_cancel_took_effect_stays_what_it_is(
    store: Store, state: JobState
) -> None:
    job = await claimed_one(store)
    await store.cancel(job.id)
    await store.finish([ended(job, state)])
    assert (await store.get(job.id)).state is state


# attempts, log


@pytest.mark.parametrize(
    ("state", "kind", "end"),
    [
        (JobState.SUCCESS, None, AttemptEnd.SUCCESS),
        (JobState.FAILURE, ErrorKind.EXCEPTION, AttemptEnd.EXCEPTION),
        (JobState.PENDING, ErrorKind.EXCEPTION, AttemptEnd.EXCEPTION),
        (JobState.FAILURE, ErrorKind.TIMEOUT, AttemptEnd.TIMEOUT),
        (JobState.PENDING, ErrorKind.TIMEOUT, AttemptEnd.TIMEOUT),
        (JobState.FAILURE, ErrorKind.CRASH, AttemptEnd.CRASH),
        (JobState.PENDING, ErrorKind.CRASH, AttemptEnd.CRASH),
        (JobState.REVOKED, ErrorKind.CANCELLED, AttemptEnd.CANCELLED),
        (JobState.FAILURE, ErrorKind.BAD_RESULT, AttemptEnd.BAD_RESULT),
        (JobState.FAILURE, ErrorKind.BAD_CONTEXT, AttemptEnd.BAD_CONTEXT),
    ],
)
async def test_an_attempt_that_has_ended_is_kept_whole(
    store: Store, state: JobState, kind: ErrorKind | None, end: AttemptEnd
) -> None:
    job = await claimed_one(store)
    assert await store.attempts(job.id) == []
    error = None if kind is None else failure(kind, message="odd: \0 \ud800 🙂")
    outcome = ended(
        job,
        state,
        error=error,
        started_at=123,
        finished_at=456,
        pid=77,
        usage=Usage(max_rss=1_000_000, cpu=0.25),
        signal=9,
        log="words \ud800 and ü\n",
    )
    assert await store.finish([outcome]) == {job.id}
    log = "words ? and ü\n".encode()
    assert await store.attempts(job.id) == [
        AttemptRecord(
            1, end, error, store.claimant, 77, 123, 456, 1_000_000, 0.25, 9, log_bytes=len(log)
        )
    ]
    assert await store.log(job.id) == log


async def test_of_an_attempt_that_only_succeeded_the_rest_is_unknown(store: Store) -> None:
    job = await claimed_one(store)
    before = now_ms()
    await store.finish([ended(job)])
    (record,) = await store.attempts(job.id)
    assert before <= record.finished_at <= now_ms()
    assert record == AttemptRecord(
        1, AttemptEnd.SUCCESS, None, store.claimant, *[None] * 2, record.finished_at, *[None] * 3, 0
    )
    assert await store.log(job.id) == b""


async def test_attempts_are_told_oldest_first_with_the_log_of_each(store: Store) -> None:
    job = await claimed_one(store)
    for turn in range(3):
        others = [await claimed_one(store) for _ in range(2)]
        again = ended(job, JobState.FAILURE, log=f"{turn}\n", finished_at=9 - turn).again(now_ms())
        await store.finish([ended(others[0], log="other"), again, ended(others[1])])
        (job,) = (await store.claim(1)).jobs
    await store.finish([ended(job)])
    records = await store.attempts(job.id)
    assert [record.number for record in records] == [1, 2, 3, 4]
    assert [record.outcome for record in records] == [*[AttemptEnd.EXCEPTION] * 3, "success"]
    assert await store.log(job.id) == b"0\n1\n2\n"
    assert await store.log(job.id, 2) == b"1\n"
    assert await store.log(job.id, 4) == await store.log(job.id, 9) == b""


async def test_only_an_outcome_that_counts_is_kept_as_an_attempt(
    backend: Backend, store: Store
) -> None:
    other = await backend.open()
    job = await claimed_one(store)
    await other.finish([ended(job)])
    await other.release([ended(job, JobState.PENDING, error=None)])
    await store.finish([ended(job._replace(attempt=2)), ended(new_job())])
    assert await store.attempts(job.id) == []
    await store.finish([ended(job), ended(job)])
    await store.finish([ended(job, JobState.FAILURE)])
    assert [record.outcome for record in await store.attempts(job.id)] == ["success"]


async def test_an_attempt_that_failed_as_its_job_was_cancelled_says_how_it_failed(
    store: Store,
) -> None:
    job = await claimed_one(store)
    await store.cancel(job.id)
    await store.finish([ended(job, JobState.FAILURE).again(now_ms())])
    (record,) = await store.attempts(job.id)
    assert (record.outcome, record.error) == (AttemptEnd.EXCEPTION, failure())
    assert (await store.get(job.id)).state is JobState.REVOKED


async def test_an_attempt_that_a_shutdown_stopped_is_kept_and_its_number_comes_again(
    store: Store,
) -> None:
    job, waiting = new_jobs(2)
    await store.add([job, waiting])
    for turn in range(2):
        began, not_begun = (await store.claim(2)).jobs
        stopped = ended(began, JobState.PENDING, error=None, started_at=5, signal=9, log=f"{turn}")
        await store.release([stopped, *invocations(not_begun)])
        kept = await store.get(job.id)
        assert (kept.state, kept.attempt, kept.error) == (JobState.PENDING, 0, None)
    (began, _) = (await store.claim(2)).jobs
    await store.finish([ended(began)])
    records = await store.attempts(job.id)
    assert [(record.number, record.outcome) for record in records] == [
        (1, AttemptEnd.SHUTDOWN),
        (1, AttemptEnd.SHUTDOWN),
        (1, AttemptEnd.SUCCESS),
    ]
    first = records[0]
    assert (first.error, first.worker, first.started_at, first.signal) == (
        None,
        store.claimant,
        5,
        9,
    )
    assert await store.log(job.id, 1) == b"01"
    assert await store.attempts(waiting.id) == []


async def test_a_lost_attempt_is_kept_in_the_name_of_the_dead(
    backend: Backend, store: Store
) -> None:
    dead = await backend.open()
    jobs = new_jobs(2)
    await dead.add(jobs)
    claimed = (await dead.claim(2)).jobs
    await dead.cancel(jobs[1].id)
    await backend.die(dead)
    before = now_ms()
    await store.reap()
    assert await store.reap() == set()
    for job in claimed:
        (record,) = await store.attempts(job.id)
        assert (record.number, record.outcome) == (1, AttemptEnd.LOST)
        assert (record.worker, record.started_at) == (dead.claimant, job.started_at)
        assert before <= record.finished_at <= now_ms()
        assert record.error is not None
        assert record.error.kind is ErrorKind.LOST


async def test_a_job_that_was_revoked_before_it_began_has_no_attempt(store: Store) -> None:
    cancelled, expired = new_job(), new_job(expires_at=now_ms() - 1)
    await store.add([cancelled, expired])
    await store.cancel(cancelled.id)
    await store.reap()
    for job in (cancelled, expired):
        assert (await store.get(job.id)).state is JobState.REVOKED
        assert await store.attempts(job.id) == []


async def test_attempts_go_with_their_job(backend: Backend, store: Store) -> None:
    old, late = await claimed_one(store), await claimed_one(store)
    for job, at in ((old, 1000), (late, 2000)):
        await store.finish([ended(job, finished_at=at, log="words")])
    assert await store.prune(2000) == 1
    for look in (store.attempts, store.log):
        with pytest.raises(JobNotFound):
            await look(old.id)
    assert len(await store.attempts(late.id)) == 1
    assert backend.rows("attempts") == 1


# release


async def test_a_released_job_has_spent_no_attempt_and_keeps_its_turn(store: Store) -> None:
    jobs = new_jobs(3, context=b"sealed")
    await store.add(jobs)
    first, second = (await store.claim(2)).jobs
    await store.release(invocations(second, first))
    kept = await store.get(first.id)
    assert (kept.state, kept.attempt, kept.claimed_by) == (JobState.PENDING, 0, None)
    assert kept.started_at is None
    again = (await store.claim(3)).jobs
    assert ids(again) == ids(jobs)
    assert [(job.attempt, job.context) for job in again] == [(1, b"sealed")] * 3


async def test_a_released_job_that_was_asked_to_stop_is_revoked(
    backend: Backend, store: Store
) -> None:
    job = await claimed_one(store, new_job(context=b"secret"))
    await store.cancel(job.id)
    await store.release(invocations(job))
    kept = await store.get(job.id)
    assert (kept.state, kept.attempt) == (JobState.REVOKED, 0)
    assert kept.error is not None
    assert kept.error.kind is ErrorKind.CANCELLED
    assert backend.context(job.id) is None


async def test_only_what_is_claimed_here_and_now_is_released(
    backend: Backend, store: Store
) -> None:
    other = await backend.open()
    job = await claimed_one(store)
    before = await store.get(job.id)
    await other.release(invocations(job))
    await store.release(invocations(job._replace(attempt=2), new_job()))
    assert await store.get(job.id) == before
    await store.finish([ended(job)])
    await store.release(invocations(job))
    assert (await store.get(job.id)).state is JobState.SUCCESS


# cancel


@pytest.mark.parametrize("run_at", [None, now_ms() + HOUR], ids=["due", "later"])
async def test_a_pending_job_is_revoked_at_once(
    backend: Backend, store: Store, run_at: int | None
) -> None:
    job = new_job(context=b"secret", run_at=run_at)
    await store.add([job])
    assert await store.cancel(job.id) is JobState.PENDING
    kept = await store.get(job.id)
    assert kept.state is JobState.REVOKED
    assert kept.error is not None
    assert kept.error.kind is ErrorKind.CANCELLED
    assert kept.finished_at is not None
    assert backend.context(job.id) is None
    claim = await store.claim(1)
    assert (claim.jobs, claim.next_due) == ([], None)


async def test_a_job_that_waits_for_its_next_attempt_is_revoked_at_once(store: Store) -> None:
    job = await claimed_one(store)
    await store.finish([ended(job, JobState.PENDING, run_at=now_ms() + HOUR)])
    assert await store.cancel(job.id) is JobState.RETRY
    assert (await store.get(job.id)).state is JobState.REVOKED


async def test_a_running_job_is_marked_for_its_claimant(backend: Backend, store: Store) -> None:
    other = await backend.open()
    job, untouched = await claimed_one(store), await claimed_one(store)
    assert await store.cancel_requests() == set()
    assert await other.cancel(job.id) is JobState.STARTED
    marked = await store.get(job.id)
    assert (marked.state, marked.claimed_by) == (JobState.STARTED, store.claimant)
    assert marked.cancel_requested_at is not None
    assert set(await store.cancel_requests()) == {job.id}
    assert set(await other.cancel_requests()) == set()
    assert await store.cancel(job.id) is JobState.STARTED
    assert await store.get(job.id) == marked
    await store.finish([ended(job, JobState.REVOKED)])
    assert set(await store.cancel_requests()) == set()
    assert (await store.get(untouched.id)).cancel_requested_at is None


@pytest.mark.parametrize("state", [JobState.SUCCESS, JobState.FAILURE, JobState.REVOKED])
async def test_an_ended_job_stays_as_it_is(store: Store, state: JobState) -> None:
    job = await claimed_one(store)
    await store.finish([ended(job, state)])
    before = await store.get(job.id)
    assert await store.cancel(job.id) is state
    assert await store.get(job.id) == before


# reap


async def test_the_jobs_of_a_dead_claimant_run_again(backend: Backend, store: Store) -> None:
    dead = await backend.open()
    job = await claimed_one(dead, new_job(context=b"sealed"))
    assert await store.reap() == set()
    assert (await store.get(job.id)).claimed_by == dead.claimant
    await backend.die(dead)
    assert await store.reap() == set()
    kept = await store.get(job.id)
    assert (kept.state, kept.attempt, kept.lost) == (JobState.RETRY, 1, 1)
    assert kept.attempts_spent == 0
    assert kept.error is not None
    assert kept.error.kind is ErrorKind.LOST
    (again,) = (await store.claim(1)).jobs
    assert (again.id, again.attempt, again.context) == (job.id, 2, b"sealed")
    assert await store.finish([ended(job)]) == set()
    assert await store.finish([ended(again)]) == {job.id}


async def test_jobs_claimed_by_the_living_are_left_alone(backend: Backend, store: Store) -> None:
    other = await backend.open()
    mine, theirs = await claimed_one(store), await claimed_one(other)
    for one in (store, other):
        assert await one.reap() == set()
    assert await store.finish([ended(mine)]) == {mine.id}
    assert await other.finish([ended(theirs)]) == {theirs.id}


async def test_a_job_lost_too_often_fails(backend: Backend, store: Store) -> None:
    job = new_job(context=b"secret")
    await store.add([job])
    for time in range(1, MAX_LOST + 1):
        dead = await backend.open()
        assert ids((await dead.claim(1)).jobs) == [job.id]
        await backend.die(dead)
        assert await store.reap() == ({job.id} if time == MAX_LOST else set())
    kept = await store.get(job.id)
    assert (kept.state, kept.lost) == (JobState.FAILURE, MAX_LOST)
    assert kept.error is not None
    assert kept.error.kind is ErrorKind.LOST
    assert kept.finished_at is not None
    assert backend.context(job.id) is None


async def test_a_lost_job_that_was_asked_to_stop_is_revoked(backend: Backend, store: Store) -> None:
    dead = await backend.open()
    job = await claimed_one(dead, new_job(context=b"secret"))
    await store.cancel(job.id)
    await backend.die(dead)
    assert await store.reap() == {job.id}
    kept = await store.get(job.id)
    assert kept.state is JobState.REVOKED
    assert kept.error is not None
    assert kept.error.kind is ErrorKind.CANCELLED
    assert backend.context(job.id) is None


async def test_jobs_that_were_not_started_in_time_are_revoked(
    backend: Backend, store: Store
) -> None:
    gone = now_ms() - 1
    expired = [
        new_job(expires_at=gone, context=b"secret"),
        new_job(expires_at=gone, run_at=now_ms() + HOUR),
    ]
    lasting, started = new_job(expires_at=now_ms() + HOUR), new_job(expires_at=now_ms() + 200)
    await store.add([started])
    assert ids((await store.claim(1)).jobs) == [started.id]
    await store.add([*expired, lasting])
    await past(started.expires_at or 0)
    assert await store.reap() == set(ids(expired))
    assert await store.reap() == set()
    kept = await store.get(expired[0].id)
    assert kept.state is JobState.REVOKED
    assert kept.error is not None
    assert kept.error.kind is ErrorKind.EXPIRED
    assert backend.context(kept.id) is None
    assert (await store.get(lasting.id)).state is JobState.PENDING
    assert (await store.get(started.id)).state is JobState.STARTED


async def test_all_expired_jobs_are_revoked_however_many(store: Store) -> None:
    jobs = new_jobs(2_500, expires_at=now_ms() - 1)
    await store.add(jobs)
    assert await store.reap() == set(ids(jobs))


# prune


async def test_what_ended_before_a_time_is_deleted_a_part_at_a_time(store: Store) -> None:
    await store.add(new_jobs(6))
    *old, late, running = (await store.claim(6)).jobs
    waiting = new_job(created_at=1)
    await store.add([waiting])
    await store.finish([ended(job, finished_at=1000 + n) for n, job in enumerate(old)])
    await store.finish([ended(late, finished_at=2000)])
    assert await store.prune(2000, limit=3) == 3
    assert set(await store.states(ids(old))) == {old[3].id}
    assert await store.prune(2000, limit=3) == 1
    assert await store.prune(2000, limit=3) == 0
    with pytest.raises(JobNotFound):
        await store.get(old[0].id)
    assert ids((await store.find(JobQuery())).jobs) == ids([waiting, running, late])


# wait, check


async def rings(store: Store, act: Callable[[], Awaitable[Any]]) -> Wake:
    await silence(store)
    await act()
    async with asyncio.timeout(PATIENCE):
        return await store.wait()


async def test_the_doorbell_rings_for_what_this_process_did(store: Store) -> None:
    job, pending = await claimed_one(store), new_job()
    assert Wake.WORK in await rings(store, lambda: store.add([pending]))
    assert await rings(store, lambda: store.cancel(pending.id)) == Wake.ENDED
    assert await rings(store, lambda: store.cancel(job.id)) == Wake.CANCEL
    assert Wake.ENDED in await rings(store, lambda: store.release(invocations(job)))
    again = await claimed_one(store)
    assert Wake.WORK in await rings(store, lambda: store.finish([ended(again, JobState.PENDING)]))
    await store.add([new_job(expires_at=now_ms() - 1)])
    assert Wake.ENDED in await rings(store, store.reap)


async def test_the_doorbell_stays_silent_when_nothing_happens(store: Store) -> None:
    job = await claimed_one(store)
    await store.finish([ended(job)])
    await silence(store)
    waiting = asyncio.create_task(store.wait())
    await store.get(job.id)
    await store.claim(1)
    await store.find(JobQuery())
    assert await store.finish([ended(job)]) == set()
    done, _ = await asyncio.wait({waiting}, timeout=0.2)
    waiting.cancel()
    assert not done


async def test_what_happened_before_anyone_waited_is_not_missed(store: Store) -> None:
    await silence(store)
    await store.add([new_job()])
    await until(store, Wake.WORK)


async def test_the_doorbell_rings_for_what_another_process_did(
    backend: Backend, store: Store
) -> None:
    other = await backend.open()
    await silence(store)
    job = new_job()
    await other.add([job])
    await until(store, Wake.WORK)
    (got,) = (await store.claim(1)).jobs
    await silence(store)
    await other.cancel(job.id)
    await until(store, Wake.CANCEL)
    await silence(other)
    await store.finish([ended(got, JobState.REVOKED)])
    await until(other, Wake.ENDED)


async def test_a_store_that_takes_writes_says_so(store: Store) -> None:
    await store.check()


async def test_a_closed_store_refuses(backend: Backend, store: Store) -> None:
    await backend.die(store)
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.add([new_job()]),
        lambda: store.claim(1),
        lambda: store.get(new_job_id()),
        lambda: store.find(JobQuery()),
        store.keys,
        store.check,
        store.reap,
    ]
    for attempt in attempts:
        with pytest.raises(StoreError):
            await attempt()


async def test_what_was_asked_before_the_close_is_still_done(
    backend: Backend, store: Store
) -> None:
    jobs = new_jobs(40)
    adding = [asyncio.create_task(add(store, [job])) for job in jobs]
    await asyncio.sleep(0)
    await backend.die(store)
    await asyncio.gather(*adding)
    assert len(await (await backend.open()).states(ids(jobs))) == 40


# callers that go away


@pytest.mark.parametrize("turns", [*range(12), 20, 40, 80])
async def test_an_add_whose_caller_has_gone_keeps_all_or_nothing(store: Store, turns: int) -> None:
    jobs = new_jobs(2)
    company = [asyncio.create_task(add(store, [new_job()])) for _ in range(3)]
    adding = asyncio.create_task(add(store, jobs))
    for _ in range(turns):
        await asyncio.sleep(0)
    adding.cancel()
    await asyncio.wait({adding})
    await asyncio.gather(*company)
    after = new_job()
    await store.add([after])
    assert len(await store.states(ids(jobs))) in (0, 2)
    assert await store.states([after.id]) == {after.id: JobState.PENDING}


@pytest.mark.parametrize("pause", [0.0001, 0.0003, 0.001, 0.003])
async def test_an_add_whose_caller_goes_during_the_commit_leaves_nothing_open(
    backend: Backend, store: Store, pause: float
) -> None:
    other = await backend.open()
    for _ in range(20):
        adding = asyncio.create_task(add(store, new_jobs(2)))
        await asyncio.sleep(pause)
        adding.cancel()
        await asyncio.wait({adding})
    await asyncio.gather(store.add([new_job()]), other.add([new_job()]))
    assert len((await store.find(JobQuery(limit=1000))).jobs) % 2 == 0


async def test_an_outcome_whose_teller_has_gone_is_recorded_or_can_be_told_again(
    store: Store,
) -> None:
    job = await claimed_one(store)
    finishing = asyncio.create_task(store.finish([ended(job)]))
    await asyncio.sleep(0)
    finishing.cancel()
    await asyncio.wait({finishing})
    await store.finish([ended(job)])
    assert (await store.get(job.id)).result == '"done"'


# the state machine


async def in_state(store: Store, state: JobState) -> Job:
    job = await claimed_one(store)
    if state is JobState.PENDING:
        await store.release(invocations(job))
    elif state is not JobState.STARTED:
        await store.finish([ended(job, state)])
    return job


async def test_the_store_makes_every_transition_of_the_model_and_no_other(
    backend: Backend, store: Store
) -> None:
    async def die_and_reap(job: Job) -> None:
        await backend.die(holder)
        await store.reap()

    acts: dict[str, Callable[[Job], Awaitable[Any]]] = {
        "add": lambda job: holder.add([job._replace(stored_state=JobState.PENDING)]),
        "claim": lambda job: holder.claim(1),
        "release": lambda job: holder.release(invocations(job)),
        "cancel": lambda job: holder.cancel(job.id),
        "cancel many": lambda job: holder.cancel_many([job.id]),
        "retry": lambda job: holder.retry([job.id]),
        "reap": lambda job: holder.reap(),
        "die": die_and_reap,
        **{
            f"finish {state}": lambda job, state=state: holder.finish([ended(job, state)])  # type: ignore[misc]
            for state in TRANSITIONS
        },
    }
    seen: dict[JobState, set[JobState]] = {state: set() for state in TRANSITIONS}
    for state in TRANSITIONS:
        for act in acts.values():
            holder = await backend.open()
            job = await in_state(holder, state)
            assert (await store.get(job.id)).stored_state is state
            with suppress(StoreError):  # refused is as good as without effect
                await act(job)
            after = (await store.get(job.id)).stored_state
            if after is not state:
                seen[state].add(after)
            await store.cancel(job.id)
            await backend.die(holder)
            await store.reap()
            assert (await store.claim(1)).jobs == []
    assert seen == {state: set(following) for state, following in TRANSITIONS.items()}


async def test_every_field_of_a_job_is_stored(store: Store) -> None:
    """A field added to `Job` must find its way into the store, or be named here."""
    job = await claimed_one(
        store,
        new_job(
            context=b"c",
            origin="{}",
            timeout=1.0,
            run_at=1,
            expires_at=now_ms() + HOUR,
            owner="ann",
            idempotency_key="k",
            fingerprint="f",
        ),
    )
    await store.cancel(job.id)
    running = await store.get(job.id)
    await store.finish([ended(job, result="1", error=failure())])
    finished = await store.get(job.id)
    told = {
        name
        for name in Job._fields
        if any(getattr(one, name) not in (None, 0) for one in (job, running, finished))
    }
    assert told == set(Job._fields) - {"priority", "crashes", "lost", "progress", "forgiven"}


# API keys


async def test_a_key_comes_back_as_it_was_kept(backend: Backend, store: Store) -> None:
    first, _ = new_key("ci")
    second, _ = new_key("Ann's “phone”", owner="ann", scopes=[Scope.ADMIN], lasts=60)
    await store.add_key(first)
    await store.add_key(second)
    assert list(await store.keys()) == [first, second]
    assert list(await (await backend.open()).keys()) == [first, second]


async def test_a_key_is_revoked_once_and_stays(store: Store) -> None:
    key, _ = new_key("ci")
    other, _ = new_key("other")
    await store.add_key(key)
    await store.add_key(other)
    before = now_ms()
    assert await store.revoke_key(key.id)
    revoked, untouched = await store.keys()
    assert before <= (revoked.revoked_at or 0) <= now_ms()
    assert replace(revoked, revoked_at=None) == key
    assert untouched == other

    await past(revoked.revoked_at or 0)
    assert await store.revoke_key(key.id)
    assert list(await store.keys()) == [revoked, other]


async def test_an_unknown_key_is_not_revoked(store: Store) -> None:
    assert not await store.revoke_key("000000000000")
    assert list(await store.keys()) == []
