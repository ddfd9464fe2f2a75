"""The limits of the queue, as one process keeps them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from jobs import intake
from jobs.errors import OwnerQueueFull, QueueFull, StoreError
from jobs.intake import Intake
from jobs.model import Job, JobId, Queued
from tests.store_play import new_job, new_jobs


class Queue:
    """The part of a store that an intake uses: `waiting` is what it says is in it."""

    def __init__(self) -> None:
        self.waiting: dict[str | None, Queued] = {}
        self.added: list[Job] = []
        self.counts = 0
        self.counted = asyncio.Event()
        self.failure: Exception | None = None

    async def add(self, jobs: Sequence[Job]) -> Sequence[JobId]:
        self.added += jobs
        return ()

    async def queued(self) -> Mapping[str | None, Queued]:
        self.counts += 1
        await asyncio.sleep(0)
        self.counted.set()
        if self.failure is not None:
            raise self.failure
        return dict(self.waiting)

    def holds(self, jobs: int, size: int = 0, owner: str | None = None) -> None:
        self.waiting = {owner: Queued(jobs, size)}


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "COUNT_PAUSE", 0.0)
    monkeypatch.setattr(intake, "COUNT_SHARE", 0)


def made(queue: Queue, **limits: Any) -> Intake:
    return Intake(queue, **{"max_jobs": 1000} | limits)  # type: ignore[arg-type]


async def recounted(queue: Queue) -> None:
    """Wait for the next count to have been made."""
    queue.counted.clear()
    await asyncio.wait_for(queue.counted.wait(), 10)
    await asyncio.sleep(0)


async def test_what_this_process_adds_counts_at_once(queue: Queue) -> None:
    way = made(queue, max_jobs=3)
    await way.count()
    await way.add(new_jobs(2))
    with pytest.raises(
        QueueFull, match=r"2 jobs wait to run, of at most 3 \(setting: max_queued\)"
    ):
        way.add(new_jobs(2))
    await way.add(new_jobs(1))
    assert len(queue.added) == 3
    await way.close()


async def test_what_was_refused_counts_for_nothing(queue: Queue) -> None:
    way = made(queue, max_jobs=3)
    await way.count()
    for _ in range(5):
        with pytest.raises(QueueFull):
            way.add(new_jobs(4))
    await way.add(new_jobs(3))
    await way.close()


async def test_after_a_refusal_the_queue_is_counted_and_has_room_again(queue: Queue) -> None:
    queue.holds(3)
    way = made(queue, max_jobs=3)
    await way.count()
    queue.holds(1)
    with pytest.raises(QueueFull):
        way.add(new_jobs(1))
    await recounted(queue)
    await way.add(new_jobs(2))
    with pytest.raises(QueueFull):
        way.add(new_jobs(1))
    await way.close()


async def test_jobs_of_other_processes_are_seen_before_the_room_is_used_up(queue: Queue) -> None:
    way = made(queue, max_jobs=100)
    await way.count()
    queue.holds(100)
    for _ in range(11):
        await way.add(new_jobs(1))
    assert way._counting is not None
    await way._counting
    with pytest.raises(QueueFull):
        way.add(new_jobs(1))
    await way.close()


async def test_an_old_count_is_made_anew(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "COUNT_EVERY", 0.0)
    way = made(queue)
    await way.count()
    await way.add(new_jobs(1))
    await recounted(queue)
    assert queue.counts == 2
    await way.close()


async def test_with_much_room_few_counts_are_made(queue: Queue) -> None:
    way = made(queue, max_jobs=100_000)
    await way.count()
    for _ in range(500):
        await way.add(new_jobs(1))
    assert queue.counts == 1
    await way.close()


async def test_counting_takes_a_small_share_of_the_time(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "COUNT_PAUSE", 60)
    queue.holds(3)
    way = made(queue, max_jobs=3)
    await way.count()
    for _ in range(100):
        with pytest.raises(QueueFull):
            way.add(new_jobs(1))
        await asyncio.sleep(0)
    assert queue.counts == 1
    await way.close()


async def test_what_is_added_during_a_count_is_not_forgotten(queue: Queue) -> None:
    way = made(queue, max_jobs=3)
    counting = asyncio.create_task(way.count())
    await asyncio.sleep(0)
    await way.add(new_jobs(2))
    await counting
    with pytest.raises(QueueFull):
        way.add(new_jobs(2))
    await way.close()


async def test_an_owner_has_a_limit_of_its_own(queue: Queue) -> None:
    queue.waiting = {"ann": Queued(2, 0), "bob": Queued(1, 0), None: Queued(50, 0)}
    way = made(queue, max_jobs_per_owner=3)
    await way.count()
    await way.add([new_job(owner="ann"), new_job(owner="bob"), new_job()])
    with pytest.raises(OwnerQueueFull, match=r"3 jobs of 'ann'.*max_queued_per_owner"):
        way.add([new_job(owner="bob"), new_job(owner="ann")])
    await way.add([new_job(owner="bob"), new_job(), new_job(owner="eve")])
    with pytest.raises(OwnerQueueFull):
        way.add([new_job(owner="bob")])
    await way.close()


async def test_an_owners_count_is_made_anew_too(queue: Queue) -> None:
    queue.holds(3, owner="ann")
    way = made(queue, max_jobs_per_owner=3)
    await way.count()
    queue.holds(1, owner="ann")
    with pytest.raises(OwnerQueueFull):
        way.add([new_job(owner="ann")])
    await recounted(queue)
    await way.add([new_job(owner="ann")] * 2)
    with pytest.raises(OwnerQueueFull):
        way.add([new_job(owner="ann")])
    await way.close()


async def test_bytes_have_a_limit(queue: Queue) -> None:
    queue.holds(1, size=70)
    way = made(queue, max_bytes=100)
    await way.count()
    await way.add([new_job(args='"12345678"', context=b"1234567890")])
    with pytest.raises(QueueFull, match=r"90 bytes, of at most 100 \(setting: max_queued_bytes\)"):
        way.add([new_job(args='"123456789"')])
    await way.add([new_job(args='"12345678"')])
    await way.close()


async def test_an_owners_bytes_have_a_limit(queue: Queue) -> None:
    queue.waiting = {"ann": Queued(1, 70), "bob": Queued(1, 5), None: Queued(50, 5000)}
    way = made(queue, max_bytes_per_owner=100)
    await way.count()
    ten, twenty = '"12345678"', '"éééé1234567890"'
    await way.add([new_job(owner="ann", args=ten, context=b"1234567890"), new_job(args=ten)])
    with pytest.raises(
        OwnerQueueFull, match=r"'ann'.* 90 bytes, .* 100 .*max_queued_bytes_per_owner"
    ):
        way.add([new_job(owner="bob", args=ten), new_job(owner="ann", args=twenty)])
    with pytest.raises(OwnerQueueFull):
        way.add([new_job(owner="bob", args=twenty)] * 5)
    await way.add([new_job(owner="ann", args=ten), new_job(owner="bob", args=twenty)])
    queue.holds(1, size=95, owner="bob")
    with pytest.raises(OwnerQueueFull):
        way.add([new_job(owner="ann", args=ten)])
    await recounted(queue)
    await way.add([new_job(owner="ann", args=twenty)] * 4)
    with pytest.raises(OwnerQueueFull):
        way.add([new_job(owner="bob", args=ten)])
    await way.close()


async def test_what_one_limit_refuses_is_counted_by_no_other(queue: Queue) -> None:
    way = made(queue, max_bytes=100, max_jobs_per_owner=1, max_bytes_per_owner=50)
    await way.count()
    for count, size in ((2, 20), (1, 60)) * 5:
        with pytest.raises(OwnerQueueFull):
            way.add([new_job(owner="ann", args="1" * size)] * count)
    await way.add([new_job(owner="ann", args="1" * 50)])
    await way.add([new_job(owner="bob", args="1" * 50)])
    await way.close()


async def test_a_count_that_fails_is_made_later_and_keeps_no_job_out(queue: Queue) -> None:
    way = made(queue, max_jobs=10)
    await way.count()
    queue.failure = StoreError("no")
    for _ in range(10):
        await way.add(new_jobs(1))
        await asyncio.sleep(0)
    assert len(queue.added) == 10
    assert way._counting is not None
    assert way._counting.exception() is None
    queue.failure = None
    queue.holds(10)
    await way.count()
    with pytest.raises(QueueFull):
        way.add(new_jobs(1))
    await way.close()


async def test_closing_ends_a_count_under_way(queue: Queue) -> None:
    way = made(queue, max_jobs=1)
    await way.count()
    with pytest.raises(QueueFull):
        way.add(new_jobs(2))
    await way.close()
    assert way._counting is not None
    assert way._counting.cancelled()
