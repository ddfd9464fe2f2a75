"""A real PostgreSQL from its wheel, on a socket in a folder of its own, and if asked at an address too."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from jobs.stores.postgres.server import SCHEMA
from service.dev_servers import Postgres


class Server:
    """One server, with these options. `at` is where it also listens, and whom it lets in there: its network."""

    def __init__(
        self, *options: str, within: Path = Path("/tmp"), at: tuple[str, int] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobs-postgres-", dir=within))
        quick = ("-c", "fsync=off", "-c", "max_connections=300")
        self._port = 5432
        if at is not None:
            address, self._port = at
            quick = (*quick, "-c", f"listen_addresses={address}", "-c", f"port={self._port}")
        self._server = Postgres(self.folder, *quick, *options)
        self._server.prepared()
        if at is not None:
            with (self.folder / "data/pg_hba.conf").open("a") as allowed:
                allowed.write("host all all samenet trust\n")
        self.start()

    @property
    def url(self) -> str:
        """Of a database that there always is."""
        return self._server.url.replace("jobs@", "jobs:hush@") + f"&port={self._port}"

    def start(self) -> None:
        """Begin, or begin again; ready on return."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._server.command, stdout=subprocess.DEVNULL, stderr=log, **self._server.how
            )
        end = time.monotonic() + 30
        while not self._server.is_ready(self.process.pid):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "PostgreSQL does not come up"
            time.sleep(0.02)

    def stop(self, how: int = Postgres.STOP) -> None:
        """End, and all sessions with it. SIGQUIT: as a crash does; SIGKILL: only it, and the rest soon after."""
        self.process.send_signal(how)
        self.process.wait(30)
        end = time.monotonic() + 30
        while self._sessions() and time.monotonic() < end:
            time.sleep(0.02)

    def _sessions(self) -> list[Path]:
        """Its processes: they work in the folder of its data."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if os.readlink(entry / "cwd") == str(self.folder / "data"):
                    found.append(entry)
        return found

    def close(self) -> None:
        """End, and leave nothing."""
        if self.process.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Delete what services have made there."""
        self.ask(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


def own() -> Iterator[Server]:
    """For the fixture of a module: a server of its own, which may be stopped, closed with the module."""
    server = Server()
    yield server
    server.close()


@cache
def shared() -> Server:
    """The one that all tests of this process share, each with a schema of its own."""
    server = Server()
    atexit.register(server.close)
    return server
