"""Several hosts: random faults for a while and no promise broken; and broken ones that the checker has to notice."""

import random
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.apps.sabotage import SABOTAGE
from tests.chaos.client import Client
from tests.chaos.effects import Effects
from tests.chaos.hosts import CeleryNemesis, Hosts
from tests.chaos.nemesis import Plan
from tests.chaos.network import Namespaces, Network, Proxies, can_have_namespaces
from tests.chaos.run import Settings, run
from tests.chaos.verdict import judge
from tests.running import PATIENCE, Starter, starter, until

start = pytest.fixture(starter)

SECONDS = 9.0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("on", ["postgres", "celery"])
def test_no_promise_is_broken_by_random_faults_on_three_hosts(tmp_path: Path, on: str) -> None:
    seed = random.randrange(10**6)
    verdict = run(tmp_path, Settings(SECONDS, seed, on))
    again = f"python -m tests.chaos --on {on} --seconds {SECONDS:g} --seed {seed}"
    assert verdict.good, f"{verdict}\nagain    {again}\nkept     {tmp_path}"
    assert verdict.jobs["accepted"] > 0
    assert verdict.jobs["runs"] > 0
    assert verdict.faults


@pytest.fixture(params=[Namespaces, Proxies])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    if request.param is Namespaces and not can_have_namespaces():
        pytest.skip("this user may not make network namespaces")
    made = request.param()
    yield made
    made.close()


ECHO = """
import socket, sys
host, _, port = sys.argv[1].partition(":")
with socket.create_connection((host, int(port))) as connection:
    while said := connection.recv(100):
        connection.sendall(said)
"""


def test_a_host_that_is_cut_off_hears_nothing_until_it_is_back(
    network: Network, start: Starter
) -> None:
    port = network.free_port(5000)
    with network.inside():
        server = socket.create_server((network.address, port))
    host = network.host("a")
    start.command(sys.executable, "-c", ECHO, host.reaches(port), popen=host.popen)
    with server, server.accept()[0] as connection:
        for silent in (False, True):
            connection.settimeout(0.3 if silent else PATIENCE)
            if silent:
                host.cut()
                connection.sendall(b"hello\n")
                with pytest.raises(TimeoutError):
                    connection.recv(100)
                host.mend()
                connection.settimeout(PATIENCE)
            else:
                connection.sendall(b"hello\n")
            assert connection.recv(100) == b"hello\n"


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Callable[..., Hosts]]:
    """Makes hosts with software that was tampered with."""
    made: list[Hosts] = []

    def make(sabotage: str, *, celery: bool = False) -> Hosts:
        env = {SABOTAGE: sabotage, "JOBS_LANES": "1"}
        made.append(Hosts(tmp_path, celery=celery, more=["tests.apps.sabotage"], **env))
        return made[-1]

    yield make
    for hosts in made:
        hosts.close()


def runs(hosts: Hosts, begun: int) -> None:
    """Wait until so many runs have begun."""
    until(lambda: len(Effects.read(hosts.effects).runs) >= begun)


def submit(hosts: Hosts, task: str, **args: object) -> None:
    assert Client(hosts.connect, hosts.history).submit(task, **args) is not None


def kinds_of(hosts: Hosts) -> set[str]:
    verdict = judge(hosts.evidence())
    print(verdict)
    return set(verdict.kinds())


def test_it_notices_late_outcomes_that_are_recorded(broken: Callable[..., Hosts]) -> None:
    hosts = broken("record_late_outcomes")
    hosts.serve(JOBS_LANES="0")
    first = hosts.work(hosts.back[0])
    submit(hosts, "sleeps", seconds=9)
    runs(hosts, begun=1)
    hosts.work(hosts.back[1])
    assert first.host is not None
    first.host.cut()
    hosts.given_up(first.host)
    runs(hosts, begun=2)
    first.host.mend()
    hosts.settle(12)
    assert kinds_of(hosts) & {"impossible", "lost"}


def test_it_notices_hosts_whose_death_nobody_minds(broken: Callable[..., Hosts]) -> None:
    hosts = broken("leave_the_dead_alone")
    hosts.serve(JOBS_LANES="0")
    member = hosts.work()
    submit(hosts, "sleeps", seconds=9)
    runs(hosts, begun=1)
    hosts.kill_family(member)
    hosts.work()
    assert not hosts.settle(5)
    assert kinds_of(hosts) == {"lost"}


def test_it_notices_messages_that_are_not_sent_again(broken: Callable[..., Hosts]) -> None:
    hosts = broken("announce_once", celery=True)
    hosts.serve()
    submit(hosts, "quick")
    with hosts.look_into_the_broker() as client:
        until(lambda: client.llen("default"))
        client.flushall()
    hosts.work()
    assert not hosts.settle(8)
    assert kinds_of(hosts) == {"lost"}


def test_it_notices_messages_that_are_obeyed_twice(broken: Callable[..., Hosts]) -> None:
    hosts = broken("run_what_is_announced", celery=True)
    hosts.begin(2)
    submit(hosts, "sleeps", seconds=2)
    runs(hosts, begun=1)
    CeleryNemesis(hosts).deliver_twice(Plan("deliver_twice", 0, 0, 0))
    runs(hosts, begun=2)
    hosts.settle(10)
    assert {"overlapping", "duplicated"} <= kinds_of(hosts)
