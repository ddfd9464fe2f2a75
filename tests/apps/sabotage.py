"""Breaks a promise of the service on purpose, to see whether the checker notices: `JOBS_SABOTAGE=<name>`,
imported beside the tasks, in the service and in its children."""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

from jobs import channel
from jobs.dispatcher import Dispatcher
from jobs.engines import lanes_process
from jobs.model import Outcome
from jobs.outbox import Outbox
from jobs.stores import claimant
from jobs.stores.postgres.queries import SQL
from jobs.stores.sqlite import SQLiteStore

SABOTAGE = "JOBS_SABOTAGE"


def acknowledge_before_the_commit() -> None:
    add = SQLiteStore.add

    def later(store: SQLiteStore, jobs: Sequence[Any]) -> Any:
        loop = asyncio.get_running_loop()
        loop.call_later(0.5, add, store, jobs)
        done = loop.create_future()
        done.set_result(None)
        return done

    SQLiteStore.add = later


def take_the_living_for_dead() -> None:
    def everyone(folder: Any, names: Any, *, me: str) -> set[str]:
        return {*names, *os.listdir(folder)} - {me}

    claimant.dead = everyone


def outlive_the_service() -> None:
    """Neither is there a guardian, nor does a child see that its service has gone, nor does it count, nor is
    it looked for."""
    lanes_process.multiprocessing.set_forkserver_preload = lambda _: None
    SQLiteStore.hold_fileno = lambda _: None
    claimant.kill_what_is_left = lambda _: None

    class Harmless:
        def __getattr__(self, name: str) -> Any:
            return (lambda *_: None) if name == "killpg" else getattr(os, name)

    channel.os = Harmless()


def forget_outcomes() -> None:
    save = Dispatcher._save

    async def forgetful(dispatcher: Dispatcher) -> None:
        dispatcher._unsaved = [each for each in dispatcher._unsaved if not _third(each)]
        await save(dispatcher)

    Dispatcher._save = forgetful


_outcomes = 0


def _third(_: Outcome) -> bool:
    global _outcomes
    _outcomes += 1
    return _outcomes % 3 == 0


def record_late_outcomes() -> None:
    """There is no fence."""
    begin, fence, end = SQL["finish"].partition("""AND jobs.attempt = ending.attempt
        AND claimed_by = %(claimant)s AND state = 'STARTED'""")
    assert fence
    SQL["finish"] = begin + end


def leave_the_dead_alone() -> None:
    """Nobody's claim ever ends."""
    SQL["dead"] = f"SELECT * FROM ({SQL['dead']}) AS dead WHERE FALSE"


def announce_once() -> None:
    """What a broker loses is not announced again."""

    async def never(_: Outbox) -> None:
        await asyncio.Event().wait()

    Outbox._compare = never


def run_what_is_announced() -> None:
    """A message is obeyed, whatever has become of the job since."""
    begin, check, end = SQL["claim_these"].partition(
        "state = 'PENDING' AND job.attempt + 1 = given.attempt"
    )
    assert check
    SQL["claim_these"] = f"{begin} state IN ('PENDING', 'STARTED') {end}"


WAYS: dict[str, Callable[[], None]] = {
    way.__name__: way
    for way in (
        acknowledge_before_the_commit,
        take_the_living_for_dead,
        outlive_the_service,
        forget_outcomes,
        record_late_outcomes,
        leave_the_dead_alone,
        announce_once,
        run_what_is_announced,
    )
}

if way := os.environ.get(SABOTAGE):
    WAYS[way]()
