"""What every store tells of what happens to jobs, and keeps of what they say."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import JobNotFound
from jobs.events import START, EventId, EventKind, JobEvent
from jobs.model import ErrorKind, Job, JobState, Outcome, new_job_id, now_ms
from jobs.protocols import Progress, Store, Wrote
from tests.store_play import (
    BACKENDS,
    PATIENCE,
    Backend,
    claimed_one,
    ended,
    failure,
    invocations,
    new_job,
    new_jobs,
    silence,
)

SUBMITTED, STARTED, PROGRESS, LOG, ENDED, FINISHED = (
    EventKind(kind)
    for kind in ("submitted", "started", "progress", "log", "attempt_ended", "finished")
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


async def events_of(store: Store, job: Job, after: EventId = START) -> list[JobEvent]:
    """All of them, page by page; none twice, and each after those before it."""
    found: list[JobEvent] = []
    more = True
    while more:
        page, more = await store.events(job.id, after)
        for event in page:
            assert event.follows(after)
            after = event.id
            found.append(event)
        assert page or not more
    return found


def shown(events: Any) -> list[Any]:
    """Kind, attempt and detail of each, as far as they have any."""
    return [tuple(each for each in (e.kind, e.attempt, e.detail) if each) for e in events]


def again(job: Job, kind: ErrorKind = ErrorKind.EXCEPTION, **fields: Any) -> Outcome:
    """The job's attempt has failed, and there is to be another now."""
    outcome = ended(job, JobState.FAILURE, error=failure(kind), **fields)
    return outcome.again(now_ms())


# One job


async def test_a_job_that_waits_has_been_submitted(store: Store) -> None:
    job = new_job(queue="mail", owner="ann", created_at=5)
    await store.add([job])
    (event,) = await events_of(store, job)
    assert event == JobEvent(job.id, EventId(0, 0), SUBMITTED, 5, job.task, "mail", "ann")


async def test_an_unknown_job_has_no_events(store: Store) -> None:
    with pytest.raises(JobNotFound):
        await store.events(new_job_id(), START)


async def test_each_attempt_starts_and_ends_and_the_last_is_followed_by_the_end(
    store: Store,
) -> None:
    job = await claimed_one(store)
    assert shown(await events_of(store, job)) == [(SUBMITTED,), (STARTED, 1)]
    await store.finish([again(job)])
    assert shown(await events_of(store, job))[2:] == [(ENDED, 1, "exception")]
    (job,) = (await store.claim(1)).jobs
    await store.finish([ended(job, JobState.FAILURE, started_at=7, finished_at=9)])
    events = await events_of(store, job)
    assert shown(events)[3:] == [(STARTED, 2), (ENDED, 2, "exception"), (FINISHED, "FAILURE")]
    assert [event.at for event in events[3:]] == [7, 9, 9]
    assert [event.error for event in events] == [None, None, failure(), None, failure(), failure()]


async def test_ids_are_the_same_in_another_process_and_after_a_restart(
    backend: Backend, store: Store
) -> None:
    job = await claimed_one(store)
    await store.say([Progress(job.id, 1, "{}")])
    events = await events_of(store, job)
    assert await events_of(await backend.open(), job) == events
    await store.finish([ended(job)])
    await backend.die(store)
    later = await events_of(await backend.open(), job)
    assert [event.id for event in later[:3]] == [event.id for event in events]
    for at, event in enumerate(later):
        assert await events_of(await backend.open(), job, event.id) == later[at + 1 :]
        assert EventId.read(str(event.id)) == event.id


async def test_an_attempt_that_a_shutdown_stopped_is_told_apart_from_the_next_of_that_number(
    store: Store,
) -> None:
    job = await claimed_one(store)
    await store.say([Progress(job.id, 1, "1")])
    await store.release([Outcome(job.id, 1, JobState.PENDING)])
    (job,) = (await store.claim(1)).jobs
    await store.say([Progress(job.id, 1, "2")])
    assert shown(await events_of(store, job)) == [
        (SUBMITTED,),
        (STARTED, 1),
        (PROGRESS, 1, "1"),
        (ENDED, 1, "shutdown"),
        (STARTED, 1),
        (PROGRESS, 1, "2"),
    ]


async def test_a_job_that_never_began_only_ends(store: Store) -> None:
    cancelled, expired = new_job(), new_job(expires_at=1)
    await store.add([cancelled, expired])
    await store.cancel(cancelled.id)
    await store.reap()
    for job, kind in ((cancelled, ErrorKind.CANCELLED), (expired, ErrorKind.EXPIRED)):
        events = await events_of(store, job)
        assert shown(events) == [(SUBMITTED,), (FINISHED, "REVOKED")]
        assert events[1].error is not None
        assert events[1].error.kind is kind


async def test_the_end_is_told_even_to_who_has_heard_of_a_start_that_came_to_nothing(
    store: Store,
) -> None:
    job = await claimed_one(store)
    started = (await events_of(store, job))[-1]
    assert started.kind is STARTED
    await store.cancel(job.id)
    await store.release(invocations(job))
    assert shown(await events_of(store, job, started.id)) == [(FINISHED, "REVOKED")]


async def test_an_attempt_whose_service_died_is_told_as_lost(
    backend: Backend, store: Store
) -> None:
    job = await claimed_one(store)
    await store.say([Wrote(job.id, 1, "so far\n")])
    await backend.die(store)
    other = await backend.open()
    await other.reap()
    events = shown(await events_of(other, job))
    assert events[2:] == [(LOG, 1, "so far\n"), (ENDED, 1, "lost")]


# What jobs say


async def test_what_a_job_says_is_kept_in_order_and_its_last_progress_is_the_jobs(
    store: Store,
) -> None:
    job = await claimed_one(store)
    said = [Progress(job.id, 1, '{"done": 1}'), Wrote(job.id, 1, "ü\n"), Progress(job.id, 1, "2")]
    before = now_ms()
    await store.say(said[:2])
    await store.say(said[2:])
    events = await events_of(store, job)
    assert shown(events)[2:] == [
        (PROGRESS, 1, '{"done": 1}'),
        (LOG, 1, "ü\n"),
        (PROGRESS, 1, "2"),
    ]
    assert all(before <= event.at <= now_ms() for event in events[2:])
    assert (await store.get(job.id)).progress == "2"


async def test_what_is_said_together_with_the_end_comes_before_it(store: Store) -> None:
    job = await claimed_one(store)
    finishing = asyncio.ensure_future(store.finish([ended(job)]))
    await asyncio.gather(finishing, store.say([Progress(job.id, 1, "1")]))
    assert shown(await events_of(store, job))[2:] == [
        (PROGRESS, 1, "1"),
        (ENDED, 1, "success"),
        (FINISHED, "SUCCESS"),
    ]


async def test_only_the_attempt_under_way_is_heard_and_only_its_claimant(
    backend: Backend, store: Store
) -> None:
    job = await claimed_one(store)
    await (await backend.open()).say([Progress(job.id, 1, "foreign")])
    await store.say([Progress(job.id, 2, "another"), Progress(new_job_id(), 1, "nobody's")])
    await store.finish([ended(job)])
    await store.say([Progress(job.id, 1, "late")])
    assert backend.rows("events") == 0
    assert (await store.get(job.id)).progress is None


async def test_the_rest_of_a_log_follows_what_has_been_told_of_it(store: Store) -> None:
    job = await claimed_one(store)
    await store.say([Wrote(job.id, 1, "ünö\n"), Wrote(job.id, 1, "two\n")])
    await store.finish([again(job, log="ünö\ntwo\nthrée")])
    (job,) = (await store.claim(1)).jobs
    await store.say([Wrote(job.id, 2, "all\n")])
    await store.finish([again(job, log="all\n")])
    (job,) = (await store.claim(1)).jobs
    await store.finish([ended(job, log="at the end")])
    events = await events_of(store, job)
    assert [(each.attempt, each.detail) for each in events if each.kind is LOG] == [
        (1, "ünö\n"),
        (1, "two\n"),
        (1, "thrée"),
        (2, "all\n"),
        (3, "at the end"),
    ]


async def test_a_job_that_says_much_is_read_page_by_page(store: Store) -> None:
    job = await claimed_one(store)
    lines = [f"{at}\n" for at in range(1200)]
    await store.say([Wrote(job.id, 1, line) for line in lines[:1000]])
    await store.finish([again(job, log="".join(lines[:1000]))])
    (job,) = (await store.claim(1)).jobs
    await store.say([Wrote(job.id, 2, line) for line in lines[1000:]])
    await store.finish([ended(job, log="".join(lines[1000:]))])
    _, more = await store.events(job.id, START)
    assert more
    events = await events_of(store, job)
    assert [event.detail for event in events if event.kind is LOG] == lines
    assert [event.kind for event in events if event.kind is not LOG] == [
        SUBMITTED,
        STARTED,
        ENDED,
        STARTED,
        ENDED,
        FINISHED,
    ]


async def test_what_a_job_said_goes_with_it(backend: Backend, store: Store) -> None:
    jobs = []
    for finished_at in (1000, 2000):
        job = await claimed_one(store)
        await store.say([Progress(job.id, 1, "1")])
        await store.finish([ended(job, finished_at=finished_at)])
        jobs.append(job)
    assert await store.prune(2000) == 1
    assert backend.rows("events") == 1
    with pytest.raises(JobNotFound):
        await store.events(jobs[0].id, START)
    assert len(await events_of(store, jobs[1])) == 5


# All jobs


async def test_news_are_what_has_happened_since_the_last(store: Store) -> None:
    old = await claimed_one(store)
    await store.say([Progress(old.id, 1, "old")])
    mark = (await store.news(None)).mark
    job = await claimed_one(store)
    await store.say([Progress(old.id, 1, "new")])
    news = await store.news(mark)
    told = {(event.job_id, *shown([event])[0]) for event in news.events}
    assert told == {
        (job.id, SUBMITTED),
        (job.id, STARTED, 1),
        (old.id, STARTED, 1),  # is told each time, until it has ended
        (old.id, PROGRESS, 1, "new"),
    }
    await store.finish([ended(job), ended(old)])
    news = await store.news(news.mark)
    assert sorted(shown(news.events)) == sorted(
        [(STARTED, 1), (ENDED, 1, "success"), (FINISHED, "SUCCESS")] * 2
    )
    assert [event.kind for event in news.events if event.job_id == job.id] == [
        STARTED,
        ENDED,
        FINISHED,
    ]
    assert (await store.news(news.mark)).events == []


async def test_news_have_the_same_ids_as_the_jobs_own_events(store: Store) -> None:
    mark = (await store.news(None)).mark
    job = await claimed_one(store)
    await store.say([Wrote(job.id, 1, "a\n")])
    await store.finish([again(job, log="a\nb")])
    (job,) = (await store.claim(1)).jobs
    await store.say([Progress(job.id, 2, "1")])
    news = await store.news(mark)
    assert news.events == await events_of(store, job)
    mark = news.mark
    await store.finish([ended(job, JobState.FAILURE)])
    assert (await store.news(mark)).events[-2:] == (await events_of(store, job))[-2:]


async def test_news_of_some_jobs_are_theirs_alone(store: Store) -> None:
    mark = (await store.news(None)).mark
    jobs = [await claimed_one(store) for _ in range(3)]
    await store.say([Progress(job.id, 1, "1") for job in jobs])
    await store.finish([ended(job) for job in jobs])
    wanted = [jobs[0].id, jobs[2].id]
    news = await store.news(mark, wanted)
    assert {event.job_id for event in news.events} == set(wanted)
    assert len(news.events) == 10
    assert (await store.news(mark, [])).events == []


@pytest.mark.parametrize("how", ["cancel", "expire", "release", "lose", "cancel a retry"])
async def test_no_end_of_a_job_is_missed(backend: Backend, store: Store, how: str) -> None:
    other = await backend.open()
    job = new_job(expires_at=now_ms() + (1 if how == "expire" else HOUR))
    await store.add([job])
    if how in ("release", "lose", "cancel a retry"):
        (job,) = (await other.claim(1)).jobs
    if how == "cancel a retry":
        await other.finish([again(job)])
    mark = (await store.news(None)).mark
    if how != "expire":
        await other.cancel(job.id)
    if how == "release":
        await other.release(invocations(job))
    elif how == "lose":
        await backend.die(other)
        await store.reap()
    elif how == "expire":
        await asyncio.sleep(0.01)
        await other.reap()
    news = await store.news(mark, [job.id])
    assert news.events[-1].kind is FINISHED
    assert news.events[-1].detail == JobState.REVOKED
    assert news.events[-1] == (await events_of(store, job))[-1]


async def test_what_processes_do_at_the_same_time_is_told_once_and_whole(
    backend: Backend, store: Store
) -> None:
    others = [await backend.open() for _ in range(3)]
    mark = (await store.news(None)).mark
    told: dict[str, list[JobEvent]] = {}
    jobs: list[Job] = []

    async def work(other: Store) -> None:
        for _ in range(15):
            mine = new_jobs(3)
            jobs.extend(mine)
            await other.add(mine)
            claimed = (await other.claim(3)).jobs
            await other.say([Progress(job.id, job.attempt, "1") for job in claimed])
            await asyncio.gather(*(other.finish([ended(job)]) for job in claimed))

    working = asyncio.gather(*map(work, others))
    while True:
        over = working.done()
        news = await store.news(mark)
        mark = news.mark
        for event in news.events:
            if event.kind is not STARTED:  # is told each time
                told.setdefault(event.job_id, []).append(event)
        if over:
            break
    await working
    for job in jobs:
        events = [event for event in await events_of(store, job) if event.kind is not STARTED]
        assert told[job.id] == events


async def test_news_go_on_when_all_that_has_ended_is_deleted(store: Store) -> None:
    for job in [await claimed_one(store) for _ in range(3)]:
        await store.say([Progress(job.id, 1, "1")])
        await store.finish([ended(job, finished_at=1)])
    mark = (await store.news(None)).mark
    assert await store.prune(2) == 3
    for _ in range(2):
        job = await claimed_one(store)
        await store.say([Progress(job.id, 1, "1")])
        await store.finish([ended(job, finished_at=1)])
        news = await store.news(mark)
        assert [event.job_id for event in news.events] == [job.id] * 5
        mark = news.mark
        assert await store.prune(2) == 1


async def test_too_much_news_are_said_to_be_too_much(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.stores.event_rows.MOST_NEWS", 5)
    mark = (await store.news(None)).mark
    await store.add(new_jobs(4))
    news = await store.news(mark)
    assert not news.missed
    await store.add(new_jobs(5))
    assert (await store.news(news.mark)).missed


async def test_the_doorbell_rings_for_what_another_process_begins_and_hears(
    backend: Backend, store: Store
) -> None:
    job, other = new_job(), await backend.open()
    await store.add([job])

    async def rings(act: Callable[[], Awaitable[Any]]) -> None:
        await silence(other)
        listening = asyncio.ensure_future(other.wait())
        await act()
        async with asyncio.timeout(PATIENCE):
            assert await listening

    await rings(lambda: store.claim(1))
    await rings(lambda: store.say([Progress(job.id, 1, "1")]))


def test_an_id_is_read_as_it_is_written() -> None:
    assert EventId.read("1.2.30") == EventId(1, 2, 30)
    for text in ("", "1", "1.2", "1.2.3.4", "a.b.c", "1.6.0", "1.2.-3", "1.2.3\n", "٣.1.0"):
        with pytest.raises(ValueError, match="event's id"):
            EventId.read(text)
