"""The forkserver's preload module: makes it the guardian of all that is ever forked from it.

Python's forkserver and its children outlive a service that is killed. Here, inside the forkserver, the
kernel is asked to tell when the service dies, and to hand over every orphan beneath; then all are
killed, those too that hold the GIL or have detached themselves. Nothing is set in the service.

The app and the task modules are imported here as well, so that a new lane has them from the start and
shares their memory, but only if the forkserver stays fit for forking: one thread, and no socket or
file left open.
"""

import asyncio
import contextlib
import errno
import gc
import json
import os
import select
import signal
import socket
import stat
import sys
import warnings
from multiprocessing import reduction
from types import FrameType

from . import current, processes  # with it comes the whole package, and all that it imports
from .child import FORKSERVER_REQUEST, import_all
from .errors import ConfigurationError
from .registry import default_registry
from .sealing import Sealer

PROBE_SECONDS = 20.0  #: how long the user's modules may take to import here

guarding: int | None = None  #: the forkserver's pid, in it and in what is forked from it
left_to_children: str | None = None  #: why the user's modules are not preloaded


def _guard() -> None:
    global guarding  # noqa: PLW0603 - one forkserver a process
    service = os.getppid()
    guarding = os.getpid()

    def on_sigterm(_number: int, _frame: FrameType | None) -> None:
        if os.getpid() != guarding:  # a child that has not yet put the handler back
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        elif os.getppid() != service:  # else it was only the thread that started us
            processes.kill_children()
            os._exit(0)

    current.become_child()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's to handle
    processes.become_subreaper()
    signal.signal(signal.SIGTERM, on_sigterm)
    processes.signal_at_parents_end(signal.SIGTERM)
    # The forkserver reaps the orphans it inherits, and would warn of each.
    warnings.filterwarnings("ignore", message="forkserver: waitpid returned unexpected pid")


def _outlive_refused_forks() -> None:
    """Python's forkserver ends when the machine refuses it one more process, and all lanes end with it. It
    does pass over a connection that was aborted: let that refused start be one."""
    fork, receive = os.fork, reduction.recvfds
    received: list[int] = []

    def recvfds(sock: socket.socket, size: int) -> list[int]:
        received[:] = receive(sock, size)
        return list(received)

    def fork_unless_refused() -> int:
        try:
            return fork()
        except OSError as refusal:
            if os.getpid() != guarding:
                raise
            for descriptor in received:  # so that the service sees that nothing will come of it
                os.close(descriptor)
            raise ConnectionAbortedError(errno.ECONNABORTED, str(refusal)) from refusal

    reduction.recvfds = recvfds
    os.fork = fork_unless_refused


def _preload(app: str | None, modules: list[str]) -> str | None:
    """Import app and modules, unless a forked probe finds that this would spoil the forkserver: then why."""
    reader, writer = os.pipe()
    probe = os.fork()
    if probe == 0:
        try:
            verdict = _try_import(app, modules)
        except BaseException as error:  # noqa: BLE001 - SystemExit too: the child will report it
            verdict = f"importing them raised {type(error).__name__}"
        os.write(writer, verdict.encode()[:4096])
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], PROBE_SECONDS)
    verdict = f"importing them took over {PROBE_SECONDS:g} s"
    if ready:
        verdict = os.read(reader, 4096).decode() or "importing them ended the process"
    os.close(reader)
    processes.kill_children()
    if verdict == "clean":
        made = import_all(app, modules)
        registry = default_registry if made is None else made.extensions["jobs"].registry
        with contextlib.suppress(ConfigurationError):  # the service itself will say so
            registry.resolve()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # there may be none
                stream.flush()  # else every child would write again what is held back here
        return None
    return verdict


def _try_import(app: str | None, modules: list[str]) -> str:
    before = _open_files()
    with open(os.devnull, "wb") as null:  # what they write, they write once: when it counts
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    import_all(app, modules)
    if len(os.listdir("/proc/self/task")) > 1:
        return "they start a thread"
    opened = [target for fd, target in _open_files().items() if fd not in before]
    return f"they leave {opened[0]} open" if opened else "clean"


def _open_files() -> dict[int, str]:
    """The descriptors that a fork must not share: sockets and regular files."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor
            mode = os.fstat(int(name)).st_mode
            if stat.S_ISSOCK(mode) or stat.S_ISREG(mode):
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


if request := os.environ.pop(FORKSERVER_REQUEST, None):
    _guard()
    wanted = json.loads(request)
    sys.path[:] = wanted["path"]
    if wanted["app"] or wanted["modules"]:
        left_to_children = _preload(wanted["app"], wanted["modules"])
    _outlive_refused_forks()
    # What OpenSSL and asyncio set up at first use, they set up here once.
    Sealer(["-"]).seal("", b"")
    asyncio.new_event_loop().close()
    # All this is shared with every child, as long as no collection writes to it.
    gc.collect()
    gc.freeze()
