"""A run: clients at work and a nemesis at theirs for a while, then peace, and a verdict."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .client import Client, Crowd
from .cluster import Cluster
from .hosts import CeleryNemesis, Hosts, HostsNemesis
from .nemesis import Nemesis, plans
from .observer import Observer
from .verdict import Verdict, Violation, judge

QUIET_WITHIN = 45.0  #: seconds, after the last fault, within which every job has ended
CLIENTS = 6
LONG = 60.0  #: seconds from which on a run has time for slow faults

SETUPS: dict[str, tuple[Callable[..., Cluster], Callable[..., Nemesis]]] = {
    "sqlite": (Cluster, Nemesis),
    "postgres": (Hosts, HostsNemesis),
    "celery": (partial(Hosts, celery=True), CeleryNemesis),
}
"""What is put to the test, and who does the harm."""


class Settings(NamedTuple):
    """What a run is to be like."""

    seconds: float
    seed: int
    on: str = "sqlite"  #: one of SETUPS
    workers: int = 1  #: processes beside the service, at first; on several hosts, one on each other
    more: Iterable[str] = ()  #: modules that the service imports besides the tasks
    env: dict[str, str] = {}  # noqa: RUF012 - never changed


def run(folder: Path, settings: Settings) -> Verdict:
    """Run it in the folder, which then holds the database, the history and the effect log."""
    make, harmful = SETUPS[settings.on]
    cluster = make(folder, more=settings.more, **settings.env)
    try:
        cluster.begin(settings.workers)
        with Observer(cluster.records, cluster.history) as observer:
            crowd = _harm(cluster, harmful(cluster), settings, observer)
            cluster.settle(QUIET_WITHIN)
        broken = cluster.ended_by_themselves()
        for member in cluster.members:
            cluster.terminate(member)
        verdict = judge(cluster.evidence())
        if crowd.failure is not None:
            broken.append(f"a client failed: {crowd.failure!r}")
        more = [Violation("impossible", "-", what) for what in broken]
        return replace(verdict, violations=[*verdict.violations, *more], where=cluster.how)
    finally:
        sys.stdout, kept = (folder / "output.log").open("w"), sys.stdout
        try:
            cluster.close()
        finally:
            sys.stdout.close()
            sys.stdout = kept


def _harm(cluster: Cluster, nemesis: Nemesis, settings: Settings, observer: Observer) -> Crowd:
    client = Client(cluster.connect, cluster.history)
    slow = nemesis.slow if settings.seconds >= LONG else {}
    until = time.monotonic() + settings.seconds
    with Crowd(client, settings.seed, CLIENTS, lambda: observer.open) as crowd:
        for plan in plans(settings.seed, {**nemesis.faults, **slow}):
            if time.monotonic() + plan.pause > until:
                break
            time.sleep(plan.pause)
            nemesis.harm(plan)
        nemesis.heal()
    return crowd
