"""What a job may leave behind in its process, and how to see that it has.

A child runs one job after another. Before the next one begins, the process has to be as it was; a
`Habitat` remembers how that is, and tells what is not so any more.
"""

import asyncio
import concurrent.futures.thread
import contextlib
import fcntl
import locale
import os
import resource
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

KINDS: Final = (
    "threads",
    "tasks",
    "descriptors",
    "cwd",
    "umask",
    "environment",
    "signals",
    "limits",
    "locale",
    "streams",
    "priority",
    "user",
)
"""What is compared: the words of `@task(keeps=…)`."""

PATIENCE = 0.01  #: seconds for a thread or task that is about to end; a new process takes longer
MANY_DESCRIPTORS = 100  #: left open beyond those at the start, they are no connection pool any more

# What the module signal wraps, to make enums of each answer: fifteen times dearer.
_signal: Any = import_module("_signal")

_LIMITS = {
    number: name
    for name, number in sorted(vars(resource).items(), reverse=True)
    if name.startswith("RLIMIT_")
}
_LIKELY_LIMITS = [
    number
    for number, name in _LIMITS.items()
    if name[7:] in {"AS", "CORE", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK"}
]
_SIGNALS = range(1, signal.NSIG)
_LIKELY_SIGNALS = _SIGNALS[:34]  # up to the first real-time one, which lanes use
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_STREAMS = ("stdin", "stdout", "stderr")
_STANDARD = (1, 2)
_DESCRIPTORS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_POOL_WORKER = (concurrent.futures.thread.__file__, "_worker")


class Habitat:
    """The state of this process as of now: what it is to be between jobs.

    `loop()` is the event loop that is kept from job to job, if there is one yet. To be made, and asked,
    in the main thread.
    """

    def __init__(self, loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None) -> None:
        self._loop = loop
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._read: dict[str, Callable[[], Any]] = {
            "cwd": _cwd,
            "umask": self._present_umask,
            "environment": lambda: dict(_variables()),
            "signals": _signals,
            "limits": lambda: list(map(resource.getrlimit, _LIMITS)),
            "locale": lambda: locale.setlocale(locale.LC_ALL),
            "streams": _streams,
            "priority": lambda: os.getpriority(os.PRIO_PROCESS, 0),
            "user": lambda: (os.getresuid(), os.getresgid(), os.getgroups()),
        }
        self._was = {kind: read() for kind, read in self._read.items()}
        self._threads = set(threading.enumerate())
        self._pooled: list[threading.Thread] = []
        self._kept_tasks: set[asyncio.Task[Any]] = set()
        self._descriptors = _descriptors()
        self._closed = select.poll()
        for fd in self._descriptors:
            self._closed.register(fd, 0)
        self._features = [(fd, _feature(fd)) for fd in _STANDARD if fd in self._descriptors]
        self._seen = self._glance()

    def looks_clean(self) -> bool:
        """A glance at all but what hardly a job changes, after every job: about 15 µs. False says that a
        closer look is due."""
        return self._seen == self._glance() and not self._busy()

    def differences(self, keeps: Collection[str] = ()) -> dict[str, str]:
        """What is not as it was, in words, by kind. What is of a kind in `keeps` belongs to the process
        from now on, as do descriptors that have been opened, and threads of a pool that have no work."""
        found: dict[str, str] = {}
        for kind, read in self._read.items():
            was, now = self._was[kind], read()
            if was != now:
                if kind in keeps:
                    self._was[kind] = now
                    self._umask = self._was["umask"]
                else:
                    found[kind] = _in_words(kind, was, now)
        for kind, look in (
            ("threads", self._left_threads),
            ("tasks", self._left_tasks),
            ("descriptors", self._left_descriptors),
        ):
            if left := look(kind in keeps):
                found[kind] = left
        if not found:
            self._seen = self._glance()
        return found

    def _glance(self) -> tuple[object, ...]:
        return (
            threading.active_count(),
            self._closed.poll(0),  # of no events: only descriptors that have been closed are told
            self._standard(),
            _cwd(),
            self._present_umask(),
            _variables() == self._was["environment"],
            list(map(resource.getrlimit, _LIKELY_LIMITS)),
            list(map(_signal.getsignal, _LIKELY_SIGNALS)),
            _signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            signal.getitimer(signal.ITIMER_REAL)[0] > 0,
            locale.setlocale(locale.LC_ALL),
            os.getpriority(os.PRIO_PROCESS, 0),
            os.geteuid(),
            os.getegid(),
            sys.stdin,
            sys.stdout,
            sys.stderr,
        )

    def _standard(self) -> list[int] | None:
        """What the standard descriptors have that others most likely have not, at a third of fstat's cost: a
        pipe its size, which lanes make larger than usual; all else its flags."""
        try:
            return [fcntl.fcntl(fd, feature) for fd, feature in self._features]
        except OSError:  # it is closed, or no pipe any more
            return None

    def _present_umask(self) -> int:
        # It can be read only by setting it: to what it should be, lest a thread opens a file meanwhile.
        now = os.umask(self._umask)
        if now != self._umask:
            os.umask(now)
        return now

    def _busy(self) -> bool:
        """Whether something that was there before may be at work again."""
        loop = self._loop()
        if loop is not None and not asyncio.all_tasks(loop) <= self._kept_tasks:
            return True
        return bool(self._pooled) and not all(map(_awaits_work, self._pooled))

    # --- what is at work

    def _left_threads(self, keep: bool) -> str | None:
        deadline = time.monotonic() + PATIENCE
        while True:
            new = [thread for thread in threading.enumerate() if thread not in self._threads]
            working = [thread for thread in new if not _awaits_work(thread)]
            if not working or keep or time.monotonic() > deadline:
                break
            time.sleep(0.0005)
        if keep:
            self._threads.update(new)
        elif working:
            return f"threads still run ({_some(thread.name for thread in working)})"
        self._pooled = [] if keep else new
        return None

    def _left_tasks(self, keep: bool) -> str | None:
        loop = self._loop()
        if loop is None:
            return None
        if keep:
            self._kept_tasks = asyncio.all_tasks(loop)
        if left := asyncio.all_tasks(loop) - self._kept_tasks:
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.call_soon(loop.stop)
                loop.run_forever()  # a stop that a job's end has left behind must not cut the wait short
                loop.run_until_complete(asyncio.wait(left, timeout=PATIENCE))
        if left := asyncio.all_tasks(loop) - self._kept_tasks:
            names = _some(getattr(task.get_coro(), "__qualname__", "?") for task in left)
            return f"asyncio tasks still run ({names})"
        return None

    # --- descriptors

    def _left_descriptors(self, keep: bool) -> str | None:
        now = _descriptors()
        lost = [fd for fd, target in self._descriptors.items() if now.get(fd) != target]
        if keep:
            self._descriptors = now
        elif lost:
            return f"descriptors were closed or replaced ({_some(map(str, lost))})"
        elif len(now) - len(self._descriptors) > MANY_DESCRIPTORS:
            return f"{len(now) - len(self._descriptors)} descriptors were left open"
        return None


def _awaits_work(thread: threading.Thread) -> bool:
    """Whether it is a thread pool's, and has nothing to do."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented
    if frame is None or (frame.f_code.co_filename, frame.f_code.co_name) != _POOL_WORKER:
        return False
    # Work that it has been given a moment ago may still lie in its queue, or just have left it.
    variables = frame.f_locals
    if variables.get("work_item") is not None or not variables["work_queue"].empty():
        return False
    # Since Python 3.13 the queue hands work to a thread that waits for it, and is empty before that runs.
    executor = variables["executor_reference"]()
    if executor is None:
        return True
    return bool(executor._idle_semaphore._value >= len(executor._threads))  # noqa: SLF001


def _descriptors() -> dict[int, tuple[int, int]]:
    """The open descriptors, and what each leads to."""
    found = {int(name): _leads_to(int(name)) for name in os.listdir(_DESCRIPTORS)}
    return {fd: target for fd, target in found.items() if target is not None}


def _leads_to(fd: int) -> tuple[int, int] | None:
    try:
        about = os.fstat(fd)
    except OSError:  # it is closed, as the one that listed them is
        return None
    return about.st_dev, about.st_ino


def _feature(fd: int) -> int:
    pipe = sys.platform == "linux" and stat.S_ISFIFO(os.fstat(fd).st_mode)
    return fcntl.F_GETPIPE_SZ if pipe else fcntl.F_GETFL


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None


def _variables() -> Mapping[Any, Any]:
    # As the bytes that they are: to decode them for each comparison would cost twenty times as much.
    return getattr(os.environ, "_data", os.environ)


def _signals() -> tuple[Any, ...]:
    """Of each signal its handler; the blocked ones; and the timers."""
    return (
        list(map(_signal.getsignal, _SIGNALS)),
        _signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        [signal.getitimer(timer)[0] > 0 for timer in _TIMERS],
    )


def _streams() -> list[Any]:
    streams = [getattr(sys, name, None) for name in _STREAMS]
    return [(stream, getattr(stream, "closed", None)) for stream in streams]


# --- in words


def _in_words(kind: str, was: Any, now: Any) -> str:
    if kind == "umask":
        return f"the umask is {now:03o}, was {was:03o}"
    if kind == "environment":  # not what they hold: that may be secret
        changed = dict(was.items() ^ now.items())
        return f"environment variables were changed ({_some(map(os.fsdecode, changed))})"
    if kind == "signals":
        return f"signal handling was changed ({_some(_changed_signals(was, now))})"
    if kind == "limits":
        return f"resource limits were changed ({_some(_changed(_LIMITS.values(), was, now))})"
    if kind == "streams":
        return f"sys.{' and sys.'.join(_changed(_STREAMS, was, now))} was replaced or closed"
    if kind == "user":
        return "the process's user or groups were changed"
    name = {"cwd": "working directory"}.get(kind, kind)
    return f"the {name} is {now}, was {was}"


def _changed_signals(was: tuple[Any, ...], now: tuple[Any, ...]) -> Iterator[str]:
    for number in _changed(_SIGNALS, was[0], now[0]):
        try:
            yield signal.Signals(number).name
        except ValueError:  # a real-time signal: only the first and the last have names
            yield f"signal {number}"
    yield from _changed(("signals are blocked", "a timer runs"), was[1:], now[1:])


def _changed(names: Iterable[Any], was: Iterable[Any], now: Iterable[Any]) -> list[Any]:
    return [name for name, old, new in zip(names, was, now, strict=True) if old != new]


def _some(names: Iterable[str], most: int = 5) -> str:
    named = sorted(names)
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")
