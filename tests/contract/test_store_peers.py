"""What every store promises of the processes that share it, and of jobs that one leaves to another."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jobs.model import JobState, PutOff, now_ms
from jobs.peers import Peer
from jobs.protocols import Store
from jobs.stores.migrate import migrations
from tests.store_play import BACKENDS, Backend, claimed_one, new_job, past


@pytest.fixture(params=list(BACKENDS))
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    backend = BACKENDS[request.param](tmp_path)
    yield backend
    await backend.close()


def peer(store: Store, **fields: Any) -> Peer:
    """What the process of a store says of itself."""
    said = {"release": "1.0", "engine": "lanes", "lanes": 2, "tasks": ("mail.send",)}
    here = {"host": "here", "pid": 1, "opened_at": 5, "schema_version": store.schema_version}
    return Peer(name=store.claimant, **said | here | fields)


async def test_processes_know_each_other_while_they_live(backend: Backend) -> None:
    one, two = await backend.open(), await backend.open()
    assert (await one.peers()).processes == ()
    await one.enter(peer(one))
    await two.enter(peer(two, release="1.1"))
    seen = await one.peers()
    assert {each.name: each for each in seen.processes} == {
        one.claimant: peer(one),
        two.claimant: peer(two, release="1.1"),
    }
    assert seen.schema_version == one.schema_version == len(migrations())
    await two.enter(peer(two, tasks=()))
    assert peer(two, tasks=()) in (await one.peers()).processes
    await backend.die(two)
    await one.reap()
    assert (await one.peers()).processes == (peer(one),)
    assert backend.rows("processes") == 1


async def test_a_job_that_is_put_off_is_hidden_until_then_and_has_spent_nothing(
    backend: Backend,
) -> None:
    store = await backend.open()
    job = await claimed_one(store)
    until = now_ms() + 300
    await store.release([PutOff(job.id, job.attempt, until)])
    assert (await store.get(job.id)).state is JobState.PENDING
    claim = await store.claim(1)
    assert (claim.jobs, claim.next_due) == ([], until)
    await past(until)
    (again,) = (await store.claim(1)).jobs
    assert (again.id, again.attempt) == (job.id, 1)
    assert await store.attempts(job.id) == []


async def test_one_that_was_asked_to_stop_is_revoked_and_not_hidden(backend: Backend) -> None:
    store = await backend.open()
    job = await claimed_one(store, new_job())
    await store.cancel(job.id)
    await store.release([PutOff(job.id, job.attempt, now_ms() + 60_000)])
    assert (await store.get(job.id)).state is JobState.REVOKED
    assert await store.published() == {}
