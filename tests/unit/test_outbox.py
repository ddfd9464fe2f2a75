"""What goes from a store to a broker, with a broker that can be told to fail."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobs import outbox
from jobs.errors import BrokerUnreachable
from jobs.model import Job, JobId, now_ms
from jobs.outbox import Outbox
from jobs.protocols import Store
from jobs.registry import Registry
from jobs.roster import Roster
from jobs.stores.sqlite import SQLiteStore
from tests.store_play import ids, new_job, new_jobs, past

PATIENCE = 10.0


class FakeBroker:
    """Keeps what it was told to announce."""

    name = "fake://broker"

    def __init__(self) -> None:
        self.said: list[tuple[JobId, int]] = []
        self.depth = 0
        self.fails = False
        self.answers = threading.Event()
        self.answers.set()
        self.closed = threading.Event()

    def publish(self, jobs: Sequence[Job]) -> None:
        self.answers.wait(PATIENCE)
        if self.fails:
            raise BrokerUnreachable("refused")
        self.said += [(job.id, job.attempt + 1) for job in jobs]

    def depths(self, queues: Collection[str]) -> dict[str, int]:
        self.answers.wait(PATIENCE)
        if self.fails:
            raise BrokerUnreachable("refused")
        return dict.fromkeys(queues, self.depth)

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COMPARE_EVERY", 0.02), ("PAUSE", 0.02), ("PATIENCE", 0.05)):
        monkeypatch.setattr(outbox, name, value)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with SQLiteStore(tmp_path / "jobs.db", busy_timeout=5) as store:
        yield store


@asynccontextmanager
async def announcing(store: Store, broker: FakeBroker) -> AsyncIterator[Outbox]:
    roster = Roster(store, Registry(), release="1", engine="celery", lanes=0)
    box = Outbox(store, broker, roster, retention=1000, changed=lambda _: None)

    async def listen() -> None:
        while True:
            box.wake(await store.wait())

    listening = asyncio.create_task(listen())
    running = asyncio.create_task(box.run())
    try:
        yield box
    finally:
        box.stop()
        await running
        listening.cancel()
    assert broker.closed.wait(PATIENCE)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def test_each_job_is_announced_once_with_its_next_attempt(store: Store) -> None:
    broker, jobs = FakeBroker(), new_jobs(500)
    broker.depth = 500
    await store.add(jobs[:250])
    async with announcing(store, broker):
        await store.add(jobs[250:])
        await until(lambda: len(broker.said) >= 500)
        await asyncio.sleep(0.1)
    assert broker.said == [(job.id, 1) for job in jobs]


async def test_a_job_is_announced_when_it_is_due(store: Store) -> None:
    broker, due = FakeBroker(), now_ms() + 150
    job = new_job(run_at=due)
    await store.add([job])
    async with announcing(store, broker):
        await until(lambda: broker.said)
        assert now_ms() >= due


async def test_what_a_broker_refuses_is_told_and_announced_later(store: Store) -> None:
    broker, jobs = FakeBroker(), new_jobs(2)
    broker.fails = True
    await store.add(jobs)
    async with announcing(store, broker) as box:
        await until(lambda: box.trouble)
        assert box.trouble is not None
        assert "fake://broker cannot be reached (refused): jobs are kept" in box.trouble
        await asyncio.sleep(0.1)  # so that nothing but its own patience makes it try again
        broker.fails = False
        await until(lambda: len(broker.said) == 2)
        await until(lambda: box.trouble is None)
    assert broker.said == [(job.id, 1) for job in jobs]


async def test_a_broker_that_says_nothing_is_trouble_and_holds_nobody_up(store: Store) -> None:
    broker = FakeBroker()
    broker.answers.clear()
    async with announcing(store, broker) as box:
        await asyncio.wait_for(store.add(new_jobs(1)), PATIENCE)
        await until(lambda: box.trouble and "no answer" in box.trouble)
        broker.answers.set()
        await until(lambda: broker.said and box.trouble is None)


async def test_what_a_broker_has_lost_is_announced_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LOST_AFTER", 0.1)
    broker, jobs = FakeBroker(), new_jobs(3)
    await store.add(jobs)
    async with announcing(store, broker):
        await until(lambda: len(broker.said) >= 6)
    assert set(broker.said) == {(job.id, 1) for job in jobs}


async def test_what_waits_in_the_broker_is_not_announced_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LOST_AFTER", 0.0)
    broker, jobs = FakeBroker(), new_jobs(3)
    broker.depth = 3
    await store.add(jobs)
    async with announcing(store, broker):
        await until(lambda: len(broker.said) == 3)
        claimed = (await store.claim_these([(jobs[0].id, 1)])).jobs
        broker.depth = 2
        await past(now_ms() + 100)
    assert ids(claimed) == [jobs[0].id]
    assert Counter(broker.said).most_common(1)[0][1] == 1
