"""`quart-jobs dev`: a service with the servers it may have later, on one machine, for trying it out."""

import asyncio
import fcntl
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from jobs import ConfigurationError

from .dev_servers import Postgres, Valkey, with_its_parent
from .server import Stop, longest_stop
from .supervisor import ProcessFailed

_PATIENCE = 30.0  #: seconds that a server may take to come up
_LAST = 10.0  #: ... and to go
_LOOK_EVERY = 0.05


class Dev:
    """Servers in `folder`, a service with its address in `listener`, and with Valkey a Celery worker.

    Raises `ConfigurationError` if what is wanted is not installed, or another one uses the folder."""

    def __init__(
        self, folder: Path, listener: socket.socket, *, postgres: bool, valkey: bool, verbose: bool
    ) -> None:
        self._listener, self._verbose = listener, verbose
        self._postgres = Postgres(folder / "postgres") if postgres else None
        self._valkey = Valkey(folder / "valkey") if valkey else None
        needed = (("psycopg", postgres), ("celery", valkey), ("redis", valkey))
        if missing := [name for name, wanted in needed if wanted and find_spec(name) is None]:
            raise ConfigurationError(
                f"{' and '.join(missing)} is not installed: pip install 'quart-jobs[dev-servers]'"
            )
        self._stack = ExitStack()
        self._own(folder)
        self.settings = self._environment(folder)
        """What is to be in the environment of all that shares the jobs."""
        self._stop: Stop | None = None
        self._started: list[_Process] = []

    def _own(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".gitignore").write_text("*\n")
            lock = self._stack.enter_context((folder / "lock").open("w"))
        except OSError as error:
            raise ConfigurationError(
                f"the folder {folder} cannot be used ({error.strerror}): name another with --folder"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another quart-jobs dev runs in {folder}: end it, or name another folder with --folder"
            ) from None

    def _environment(self, folder: Path) -> dict[str, str]:
        found = {"JOBS_DATABASE": str(folder.resolve() / "jobs.db")}
        if self._postgres is not None:
            found = {"JOBS_DATABASE": self._postgres.url}
        if "JOBS_SECRET_KEY" not in os.environ:
            found["JOBS_SECRET_KEY"] = _kept_key(folder / "secret-key")
        if self._valkey is not None:
            found |= {"JOBS_ENGINE": "celery", "JOBS_BROKER": self._valkey.url}
        return found

    async def run(self, greeting: str) -> None:
        """Until SIGTERM or SIGINT. Raises `ProcessFailed` when something has ended by itself, `ServerUnusable`."""
        self._stop = Stop(last=self._kill)
        grace = float(os.environ.get("JOBS_GRACE", "10"))
        self._stop.grace = grace + _LAST  # what it stops has deadlines of its own, which come first
        try:
            for name, server in (("postgres", self._postgres), ("valkey", self._valkey)):
                if server is not None and not self._stop.event.is_set():
                    await asyncio.to_thread(server.prepared)
                    await self._start_server(name, server)
            if not self._stop.event.is_set():
                click.echo(greeting)
                await self._start_ours()
                await self._until_the_end()
        finally:
            await self._end(longest_stop(grace) + 1)
            self._stack.close()

    async def _start_server(self, name: str, server: Postgres | Valkey) -> None:
        process = await self._start(name, server.command, server.STOP, **server.how)
        try:
            async with asyncio.timeout(_PATIENCE):
                while not server.is_ready(process.pid):
                    process.must_live()
                    await asyncio.sleep(_LOOK_EVERY)
        except TimeoutError:
            raise ProcessFailed(f"{name} is not ready after {_PATIENCE:g} s", 1) from None

    async def _start_ours(self) -> None:
        descriptor = self._listener.fileno()
        python = (sys.executable, "-P", "-m")
        verbose = ["--verbose"] if self._verbose else []
        serve = [*python, "service.cli", "serve", "--listen-fd", str(descriptor), *verbose]
        worker = [*python, "celery", "-A", "jobs.engines.celery", "worker", "--loglevel", "info"]
        how: dict[str, Any] = {
            "env": os.environ | self.settings | {"PYTHONUNBUFFERED": "1"},
            "preexec_fn": partial(with_its_parent, signal.SIGTERM),
        }
        await self._start("serve", serve, signal.SIGTERM, pass_fds=(descriptor,), **how)
        if self._valkey is not None:
            await self._start("celery", worker, signal.SIGTERM, **how)

    async def _start(self, name: str, command: Sequence[str], stop: int, **how: Any) -> "_Process":
        started = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            process_group=0,  # Ctrl-C reaches it through us, once
            **how,
        )
        process = _Process(name, started, stop)
        self._started.append(process)
        return process

    async def _until_the_end(self) -> None:
        assert self._stop is not None
        ends = [asyncio.create_task(one.ended(), name=one.name) for one in self._started]
        stopping = asyncio.create_task(self._stop.event.wait())
        await asyncio.wait({stopping, *ends}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not self._stop.event.is_set():
            for process in self._started:
                process.must_live()

    async def _end(self, patience: float) -> None:
        """First those that use the servers, then the servers."""
        ours = [one for one in self._started if one.name in ("serve", "celery")]
        servers = [one for one in self._started if one not in ours]
        for group, seconds in ((ours, patience), (servers, _LAST)):
            await asyncio.gather(*(process.end(seconds) for process in group))

    def _kill(self) -> None:
        for process in self._started:
            process.kill()


class _Process:
    """One that was started, and what it says, each line with its name before it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, stop: int) -> None:
        self.name, self.pid = name, process.pid
        self._process, self._signal = process, stop
        self._forwarding = asyncio.create_task(self._forward(), name=f"what {name} says")

    async def _forward(self) -> None:
        said = self._process.stdout
        assert said is not None
        while True:
            try:
                line = await said.readline()
            except ValueError:  # a line without an end
                continue
            if not line:
                return
            click.echo(f"{self.name:8} | {line.decode(errors='replace').rstrip()}")

    async def ended(self) -> None:
        await self._process.wait()
        with suppress(TimeoutError):  # what it started may hold the pipe
            await asyncio.wait_for(asyncio.shield(self._forwarding), 1)

    def must_live(self) -> None:
        """Raises `ProcessFailed` if it does not."""
        code = self._process.returncode
        if code is not None:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise ProcessFailed(
                f"{self.name} has ended ({how}), and so all ends", max(code, 0) or 1
            )

    async def end(self, patience: float) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(self._signal)
            try:
                await asyncio.wait_for(self._process.wait(), patience)
            except TimeoutError:
                self.kill()
        await self.ended()
        self._forwarding.cancel()

    def kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def greeting(url: str, folder: Path, settings: Mapping[str, str]) -> str:
    """What there is, and what to try."""
    shown = "\n".join(
        f"    export {name}={text}" for name, text in settings.items() if "KEY" not in name
    )
    if "JOBS_SECRET_KEY" in settings:
        shown += f"\n    export JOBS_SECRET_KEY=$(cat {folder / 'secret-key'})"
    worker = (
        "celery -A jobs.engines.celery worker -c 1 -n another@%h"
        if "JOBS_BROKER" in settings
        else "quart-jobs worker"
    )
    return f"""\
quart-jobs dev: all is kept in {folder}; delete it to begin anew. Ctrl-C ends all.
  Try
    curl {url}/tasks
    curl -i {url}/tasks/<name>/jobs -H 'Content-Type: application/json' -d '{{}}'
    curl {url}/jobs
  In another terminal, with the tasks named as here, {worker} helps with the same jobs:
{shown}"""


def _kept_key(path: Path) -> str:
    """The key in this file, which is made if it is not there."""
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
    return path.read_text().strip()
