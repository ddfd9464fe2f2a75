"""In PostgreSQL too: who starts together migrates once, and who dies within a migration leaves none of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from jobs.stores.migrate import migrations
from tests.apps.migrating_process import PAUSED
from tests.postgres import Server, own
from tests.running import PATIENCE, ROOT, until

KNOWN = len(migrations("postgres"))
STATEMENTS = 4  #: in the further migration

Process = subprocess.Popen[str]


own_server = pytest.fixture(scope="module")(own)


@pytest.fixture
def server(own_server: Server) -> Server:
    """With nothing in it."""
    own_server.clear()
    return own_server


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def migrating(server: Server, *pause: str) -> Process:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/apps/migrating_process.py"), server.url, *pause],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def of_this_release(server: Server) -> None:
    """A database with a job in it."""
    command = [sys.executable, "-P", "-m", "service.cli", "migrate"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "JOBS_DATABASE": server.url}
    subprocess.run(command, env=env, check=True, capture_output=True)
    server.ask(
        "INSERT INTO quart_jobs.jobs (id, task, queue, priority, ready, max_attempts, created_at, size)"
        " VALUES ('a', 'a', 'default', 0, TRUE, 1, 0, 0)"
    )


def version(server: Server) -> int:
    ((number,),) = server.ask("SELECT max(number) FROM quart_jobs.migrations")
    return int(number)


def further(server: Server) -> int:
    """How many traces there are of the further migration."""
    ((count,),) = server.ask(
        "SELECT count(*) FROM information_schema.columns"
        " WHERE table_schema = 'quart_jobs' AND (table_name = 'further' OR column_name = 'further')"
    )
    return int(count)


def test_four_processes_that_start_together_on_a_fresh_schema_migrate_once(
    server: Server, processes: list[Process]
) -> None:
    """Fault row 41."""
    processes += [migrating(server) for _ in range(4)]
    said = sorted(process.communicate(timeout=PATIENCE)[0].strip() for process in processes)
    everything = " ".join(map(str, range(1, KNOWN + 2)))
    assert said == ["applied"] * 3 + [f"applied {everything}"]
    assert version(server) == KNOWN + 1
    assert further(server) == 2


@pytest.mark.parametrize("victim", ["process", "server"])
def test_a_death_within_a_migration_leaves_the_old_version_whole(
    server: Server, processes: list[Process], victim: str
) -> None:
    """Fault row 41: whoever dies, and wherever; the next that starts does it all."""
    of_this_release(server)
    for pause in (0, 2, STATEMENTS) if victim == "process" else [2]:
        with psycopg.connect(server.url, autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(%s)", (PAUSED,))
            processes.append(killed := migrating(server, str(pause)))
            until(
                lambda: server.ask(
                    "SELECT 1 FROM pg_locks WHERE objid = %s AND NOT granted", PAUSED
                )
            )
            if victim == "server":
                server.stop(signal.SIGKILL)
                server.start()
                assert killed.wait(PATIENCE) != 0
            else:
                killed.kill()
                killed.wait(PATIENCE)
        until(lambda: not server.ask("SELECT 1 FROM pg_locks WHERE objid = %s", PAUSED))
        assert (version(server), further(server)) == (KNOWN, 0)
        assert server.ask("SELECT id FROM quart_jobs.jobs") == [("a",)]
    processes.append(again := migrating(server))
    assert again.communicate(timeout=PATIENCE)[0] == f"applied {KNOWN + 1}\n"
    assert server.ask("SELECT count(*) FROM quart_jobs.jobs WHERE further = seq") == [(1,)]
