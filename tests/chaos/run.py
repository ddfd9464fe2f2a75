"""A run: clients at work and a nemesis at theirs for a while, then peace, and a verdict."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .client import Client, Crowd
from .cluster import Cluster
from .nemesis import Nemesis, plans
from .observer import Observer
from .verdict import Verdict, Violation, judge

QUIET_WITHIN = 45.0  #: seconds, after the last fault, within which every job has ended
CLIENTS = 6


class Settings(NamedTuple):
    """What a run is to be like."""

    seconds: float
    seed: int
    workers: int = 1  #: processes beside the service, at first
    more: Iterable[str] = ()  #: modules that the service imports besides the tasks
    env: dict[str, str] = {}  # noqa: RUF012 - never changed


def run(folder: Path, settings: Settings) -> Verdict:
    """Run it in the folder, which then holds the database, the history and the effect log."""
    cluster = Cluster(folder, more=settings.more, **settings.env)
    try:
        cluster.serve()
        for _ in range(settings.workers):
            cluster.work()
        with Observer(cluster.database, cluster.history) as observer:
            crowd = _harm(cluster, settings, observer)
            cluster.settle(QUIET_WITHIN)
        broken = cluster.ended_by_themselves()
        for member in cluster.members:
            cluster.terminate(member)
        verdict = judge(cluster.evidence())
        if crowd.failure is not None:
            broken.append(f"a client failed: {crowd.failure!r}")
        more = [Violation("impossible", "-", what) for what in broken]
        return Verdict([*verdict.violations, *more], verdict.jobs, verdict.faults, verdict.slowest)
    finally:
        sys.stdout, kept = (folder / "output.log").open("w"), sys.stdout
        try:
            cluster.close()
        finally:
            sys.stdout.close()
            sys.stdout = kept


def _harm(cluster: Cluster, settings: Settings, observer: Observer) -> Crowd:
    nemesis = Nemesis(cluster)
    client = Client(cluster.port, cluster.history)
    until = time.monotonic() + settings.seconds
    with Crowd(client, settings.seed, CLIENTS, lambda: observer.open) as crowd:
        for plan in plans(settings.seed):
            if time.monotonic() + plan.pause > until:
                break
            time.sleep(plan.pause)
            nemesis.harm(plan)
        nemesis.heal()
    return crowd
