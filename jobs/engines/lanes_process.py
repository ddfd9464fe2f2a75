"""A lane's process: an executor with one worker, started, watched, killed and buried."""

import asyncio
import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from multiprocessing.process import BaseProcess
from time import monotonic
from types import ModuleType

from jobs import child, processes
from jobs.errors import AppNotImportable, ConfigurationError

from .endings import exit_in_words
from .lanes_output import PIPE_BYTES

START_SECONDS = 60.0  #: how long a child may take to import the app and the tasks
_BURIAL_SECONDS = (
    2.0  #: how long the executor of a dead child, and what it left running, may take to go
)
_SWEEP_PAUSE = 0.03

_METHOD = "forkserver" if processes.LINUX else "spawn"


def refuse_daemon() -> None:
    """Raise `ConfigurationError` where Python forbids child processes."""
    if multiprocessing.current_process().daemon:
        raise ConfigurationError(
            "this server process is daemonic, and such may not have child processes: set `daemon = false` in"
            " hypercorn.toml and start with `hypercorn -c hypercorn.toml`, or use `quart-jobs serve`"
        )


class LaneProcess:
    """One child process. `channel` is the descriptor of this end of its side channel, `output` that of
    the pipe with what it writes, where that is to be captured (both non-blocking); `mark` separates
    one job's output from the next's.

    Everything is called on one event loop, and starts processes in that loop's thread.
    """

    def __init__(self, boot: child.Boot, *, capture: bool) -> None:
        self._boot = boot
        self.pid = 0
        self.killed = False
        self.note: str | None = None  #: for the log: why it starts slower than it could
        self.guarded = (
            False  #: whether the forkserver sees to the end of all that this child starts
        )
        self._guardian = 0
        self._process: BaseProcess | None = None
        self._ours, theirs = Pipe()
        os.set_blocking(self._ours.fileno(), False)
        held = None
        if boot.hold is not None:
            held = Connection(os.dup(boot.hold), writable=False)
        self.mark = os.urandom(16)
        self._pipe: Connection | None = None
        out = None
        if capture:
            self._pipe, into = Pipe(duplex=False)
            os.set_blocking(self._pipe.fileno(), False)
            _widen(into.fileno())
            out = into, self.mark
        self._executor = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context(_METHOD),
            initializer=child.enter,
            initargs=(replace(boot, hold=None), theirs, held, out),
        )
        try:
            with _starting(boot):
                self._first: Future[tuple[int, int]] = self._executor.submit(child.whoami)
        except BaseException:
            self._ours.close()
            self.close_output()
            self._executor.shutdown(wait=False)
            raise
        finally:
            theirs.close()
            if out is not None:
                out[0].close()
            if held is not None:
                held.close()

    @property
    def guardian(self) -> int:
        """The process it was forked from, the forkserver; it does not outlive that one."""
        return self._guardian

    @property
    def channel(self) -> int:
        """The descriptor of the side channel."""
        return self._ours.fileno()

    @property
    def output(self) -> int | None:
        """The descriptor of the pipe."""
        return None if self._pipe is None else self._pipe.fileno()

    async def ready(self) -> None:
        """Return when it has imported everything. Raises `AppNotImportable`."""
        what = ", ".join(filter(None, (self._boot.app, *self._boot.modules))) or "nothing"
        try:
            async with asyncio.timeout(START_SECONDS):
                self.pid, self._guardian = await asyncio.wrap_future(self._first)
                for process in multiprocessing.active_children():
                    if process.pid == self.pid:
                        self._process = process
                report = json.loads(await asyncio.wrap_future(self._executor.submit(child.prepare)))
        except TimeoutError:
            raise AppNotImportable(
                f"a child process had not imported {what} after {START_SECONDS:g} s: does a module call"
                " app.run(), or something else that does not return, outside `if __name__ == '__main__':`?"
            ) from None
        except BrokenExecutor:
            code = await self._exit_code()
            raise AppNotImportable(
                f"a child process {exit_in_words(code)} while it imported {what}"
            ) from None
        if report["error"]:
            raise AppNotImportable(f"child processes cannot import {what}: {report['error']}")
        self.guarded, self.note = report["guarded"], report["note"]

    def run(self, payload: bytes) -> None:
        """Have a batch run. If the child is gone, nothing happens: its end tells."""
        with contextlib.suppress(BrokenExecutor):
            self._executor.submit(child.run_batch, payload)

    def kill(self) -> None:
        """SIGKILL the process and its group."""
        self.killed = True
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def close_channel(self) -> None:
        """Close this end; a child that still lives takes that for its own end."""
        self._ours.close()

    def close_output(self) -> None:
        """Close the reading end of the pipe."""
        if self._pipe is not None:
            self._pipe.close()

    async def bury(self) -> int | None:
        """The exit code of the process, which has ended or been killed, once nothing is left of it."""
        code = await self._exit_code()
        await self._sweep()
        return code

    async def _exit_code(self) -> int | None:
        # Only after the executor's own thread has read it from the forkserver's pipe: two readers would
        # each get half. A grandchild may hold that thread up until it is swept.
        try:
            async with asyncio.timeout(_BURIAL_SECONDS):
                await asyncio.to_thread(self._executor.shutdown)
        except TimeoutError:
            pass
        except (OSError, RuntimeError):  # the machine gives no thread, or no file
            return None
        return self._process.exitcode if self._process is not None else None

    async def _sweep(self) -> None:
        """Kill what the dead child had started: it has become the forkserver's; or, where that has died
        too, nobody's, and only its environment tells.

        A process is killed when seen twice: one that is just being started by this program is in
        `active_children` by then."""
        deadline = monotonic() + _BURIAL_SECONDS
        seen: set[int] = set()
        while self.guarded and monotonic() < deadline:
            with contextlib.suppress(OSError):  # out of descriptors: look again
                strays = self._strays()
                if not strays:
                    return
                for pid in strays & seen:
                    processes.kill(pid)
                seen = strays
            await asyncio.sleep(_SWEEP_PAUSE)

    def _strays(self) -> set[int]:
        mine = {process.pid for process in multiprocessing.active_children()}
        if processes.has_ended(self._guardian):
            return processes.strays(processes.tree())
        return set(processes.children(self._guardian)) - mine - {self.pid}


def _widen(pipe: int) -> None:
    """Let a job write on while the service is busy. Without that the kernel's 64 kB have to do."""
    if processes.LINUX:
        with contextlib.suppress(OSError):  # the user has too many such pipes, pipe(7)
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


@contextlib.contextmanager
def _starting(boot: child.Boot) -> Iterator[None]:
    """Around the start of a process, which may be the forkserver's too."""
    multiprocessing.set_forkserver_preload(["jobs.guardian"])
    wanted = {"path": sys.path, "app": boot.app, "modules": boot.modules}
    os.environ[child.FORKSERVER_REQUEST] = json.dumps(wanted)
    outer = os.environ.get(processes.LANES_OF)
    os.environ[processes.LANES_OF] = processes.tree()
    # multiprocessing would import the program's main module in the child: for nothing, as ours have names
    # of their own, and with a script that lacks the guard, again and again.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        del os.environ[child.FORKSERVER_REQUEST], os.environ[processes.LANES_OF]
        if outer is not None:  # a service that a job has started
            os.environ[processes.LANES_OF] = outer
