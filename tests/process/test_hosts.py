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
from tests.chaos.hosts import Hosts
from tests.chaos.network import Namespaces, Network, Proxies, can_have_namespaces
from tests.chaos.run import Settings, run
from tests.chaos.verdict import judge
from tests.running import PATIENCE, Starter, starter, until

start = pytest.fixture(starter)

SECONDS = 8.0


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


@pytest.fixture(params=[Proxies, *([Namespaces] if can_have_namespaces() else [])])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
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

    def make(sabotage: str, *, celery: bool = False, **env: str) -> Hosts:
        env |= {SABOTAGE: sabotage}
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


@pytest.mark.timeout(120)
def test_it_notices_late_outcomes_that_are_recorded(broken: Callable[..., Hosts]) -> None:
    hosts = broken("record_late_outcomes", JOBS_LANES="1")
    hosts.begin(2)
    submit(hosts, "sleeps", seconds=60)
    runs(hosts, begun=1)
    (run,) = Effects.read(hosts.effects).runs
    (member,) = (member for member in hosts.members if member.name == run.member)
    assert member.host is not None
    member.host.cut()
    hosts.given_up(member.host)
    runs(hosts, begun=2)
    member.host.mend()
    assert hosts.settle(PATIENCE), "as soon as it is back it stops what others took"
    assert "impossible" in kinds_of(hosts)


@pytest.mark.timeout(120)
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
