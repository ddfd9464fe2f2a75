"""`serve --workers N`: processes that share one listening socket, kept running by this one."""

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import click

from jobs import JobsError

from .server import Stop, longest_stop

STARTS = 5  #: failed starts in a row after which it is hopeless
PAUSE = 0.1  #: seconds before the first restart; doubled for each that did not last
LONGEST_PAUSE = 10.0
LASTING = 10.0  #: seconds after which a worker counts as having started well


class ProcessFailed(JobsError):
    """A process that this one looks after cannot be started, or has ended. `code` is its exit code."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


@dataclass(slots=True)
class _Worker:
    process: Process
    control: asyncio.StreamWriter  #: kept open: its end of file tells the worker that we are gone
    greeting: str  #: empty if it ended before it was ready
    since: float


class Supervisor:
    """Keeps `count` workers on one listening socket.

    A worker that ends is replaced; one that cannot start, several times in a row, ends the service.
    """

    def __init__(self, listener: socket.socket, count: int, *, grace: float, verbose: bool) -> None:
        self._listener, self._count, self._verbose = listener, count, verbose
        self._processes: set[Process] = set()
        self._stop = Stop(last=self._kill)
        self._stop.grace = grace + 2  # a worker's own deadline comes first
        self._deadline = longest_stop(grace) + 1

    async def run(self, announce: Callable[[str], None]) -> None:
        """Until SIGTERM or SIGINT. Raises `ProcessFailed`."""
        # The first alone: it creates the database, and what keeps it from starting is said once.
        first = await self._start()
        if not first.greeting:
            code = await self._ended(first)
            if self._stop.event.is_set():
                return
            raise ProcessFailed("the first worker did not start", code)
        announce(first.greeting)
        keepers = [
            asyncio.create_task(self._keep(worker))
            for worker in [first, *[None] * (self._count - 1)]
        ]
        stopping = asyncio.create_task(self._stop.event.wait())
        await asyncio.wait({stopping, *keepers}, return_when=asyncio.FIRST_COMPLETED)
        self._stop.event.set()
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait(keepers, timeout=self._deadline)
        self._kill()
        await asyncio.gather(*keepers)

    async def _keep(self, worker: _Worker | None) -> None:
        """One place among the workers: filled again whenever it falls empty, until we stop."""
        short_lived = failed = 0
        while not self._stop.event.is_set():
            if worker is None:
                worker = await self._start()
            code = await self._ended(worker)
            if self._stop.event.is_set():
                return
            failed = 0 if worker.greeting else failed + 1
            if failed == STARTS:
                raise ProcessFailed(f"a worker could not be started {STARTS} times in a row", code)
            click.echo(
                f"quart-jobs: worker {worker.process.pid} ended ({_how(code)}); starting another",
                err=True,
            )
            short_lived = 0 if monotonic() - worker.since > LASTING else short_lived + 1
            await self._pause(min(PAUSE * 2**short_lived, LONGEST_PAUSE))
            worker = None

    async def _start(self) -> _Worker:
        """Start a worker; return when it is ready, or has ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = (self._listener.fileno(), theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "service.cli", "serve"),
                *("--listen-fd", str(descriptors[0]), "--control-fd", str(descriptors[1])),
                *(["--verbose"] if self._verbose else []),
                pass_fds=descriptors,
                process_group=0,  # Ctrl-C reaches them through us, once
            )
        self._processes.add(process)
        if self._stop.event.is_set():
            process.send_signal(signal.SIGTERM)
        reader, control = await asyncio.open_connection(sock=ours)
        return _Worker(process, control, (await reader.read()).decode(), monotonic())

    async def _ended(self, worker: _Worker) -> int:
        code = await worker.process.wait()
        self._processes.discard(worker.process)
        worker.control.close()
        return code

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.event.wait(), seconds)

    def _kill(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()


def report_ready(descriptor: int, greeting: str) -> None:
    """A worker's word to its supervisor that it serves, and what is to be said of that."""
    control = socket.socket(fileno=descriptor)
    control.sendall(greeting.encode())
    control.shutdown(socket.SHUT_WR)
    control.detach()


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
