"""Random faults for a while and no promise broken; and broken promises that the checker has to notice."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.apps.sabotage import SABOTAGE
from tests.chaos.case import Limits
from tests.chaos.client import Client
from tests.chaos.cluster import Cluster, Member
from tests.chaos.effects import Effects
from tests.chaos.observer import Observer
from tests.chaos.run import Settings, run
from tests.chaos.verdict import PROMISED, Verdict, judge
from tests.running import until

SECONDS = 20.0


@pytest.mark.timeout(180)
def test_no_promise_is_broken_by_random_faults(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    verdict = run(tmp_path, Settings(SECONDS, seed))
    again = f"python -m tests.chaos --seconds {SECONDS:g} --seed {seed}"
    assert verdict.good, f"{verdict}\nagain    {again}\nkept     {tmp_path}"
    assert verdict.jobs["accepted"] > 0
    assert verdict.jobs["runs"] > 0
    assert verdict.faults


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes a cluster that was tampered with."""
    made: list[Cluster] = []

    def make(sabotage: str | None = None, **env: str) -> Cluster:
        env |= {SABOTAGE: sabotage} if sabotage else {}
        made.append(Cluster(tmp_path, more=["tests.apps.sabotage"], **env))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


def submitted(cluster: Cluster, task: str, count: int = 1, **args: object) -> Member:
    """The service, with jobs that it has accepted."""
    service = cluster.serve()
    client = Client(cluster.connect, cluster.history)
    for _ in range(count):
        assert client.submit(task, **args) is not None
    return service


def runs(cluster: Cluster, begun: int) -> None:
    """Wait until so many runs have begun."""
    until(lambda: len(Effects.read(cluster.effects).runs) >= begun)


def verdict_on(cluster: Cluster, limits: Limits = PROMISED) -> Verdict:
    verdict = judge(cluster.evidence(), limits)
    print(verdict)
    return verdict


def test_it_notices_an_answer_that_comes_before_the_commit(broken: Callable[..., Cluster]) -> None:
    cluster = broken("acknowledge_before_the_commit")
    cluster.kill(submitted(cluster, "quick", 5))
    assert verdict_on(cluster).kinds()["lost"] >= 1


def test_it_notices_jobs_that_are_taken_from_the_living(broken: Callable[..., Cluster]) -> None:
    cluster = broken("take_the_living_for_dead")
    cluster.work()
    submitted(cluster, "sleeps", 2, seconds=20)
    runs(cluster, begun=3)
    until(lambda: judge(cluster.evidence()).kinds()["overlapping"])
    assert verdict_on(cluster).kinds()["duplicated"] >= 1


def test_it_notices_children_that_outlive_their_service(broken: Callable[..., Cluster]) -> None:
    cluster = broken("outlive_the_service")
    service = submitted(cluster, "sleeps", seconds=300)
    runs(cluster, begun=1)
    cluster.work()
    cluster.kill(service)
    too_long = time.monotonic() + PROMISED.survivors
    runs(cluster, begun=2)
    until(
        lambda: (both := Effects.read(cluster.effects).runs)[0].last > max(both[1].began, too_long)
    )
    service.running.close()
    found = verdict_on(cluster, Limits(patience=1)).kinds()
    assert found["overlapping"] == 1
    assert found["late"] >= 1


def test_it_notices_outcomes_that_are_forgotten(broken: Callable[..., Cluster]) -> None:
    cluster = broken("forget_outcomes")
    submitted(cluster, "quick", 3)
    runs(cluster, begun=3)
    assert not cluster.settle(2)
    assert verdict_on(cluster).kinds() == {"lost": 1}


def test_it_notices_a_crash_loop(broken: Callable[..., Cluster]) -> None:
    cluster = broken(JOBS_MAX_CRASHES="5")
    with Observer(cluster.records, cluster.history):
        submitted(cluster, "dies", how="kill", times=9)
        assert cluster.settle(30)
    assert verdict_on(cluster).kinds() == {"impossible": 2}
