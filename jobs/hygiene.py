"""What a job may leave behind in its process, and how to see that it has.

A child runs one job after another. Before the next one begins, the process has to be as it was; a
`Habitat` remembers how that is, and tells what is not so any more.
"""

import asyncio
import concurrent.futures.thread
import contextlib
import locale
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
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

# What signal.getsignal wraps, to make an enum of each answer: fifteen times dearer.
_getsignal: Callable[[int], Any] = import_module("_signal").getsignal

_LIMITS = {
    number: name
    for name, number in sorted(vars(resource).items(), reverse=True)
    if name.startswith("RLIMIT_")
}
_SIGNALS = range(1, signal.NSIG)
_LIKELY_SIGNALS = [
    getattr(signal, f"SIG{name}")
    for name in ["HUP", "INT", "PIPE", "ALRM", "TERM", "CHLD", "USR1", "USR2"]
]
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_STREAMS = ("stdin", "stdout", "stderr")
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
            "limits": lambda: {number: resource.getrlimit(number) for number in _LIMITS},
            "locale": lambda: locale.setlocale(locale.LC_ALL),
            "streams": _streams,
            "priority": lambda: os.getpriority(os.PRIO_PROCESS, 0),
            "user": lambda: (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()),
        }
        self._was = {kind: read() for kind, read in self._read.items()}
        self._threads = set(threading.enumerate())
        self._pooled: list[threading.Thread] = []
        self._kept_tasks: set[asyncio.Task[Any]] = set()
        self._descriptors = _descriptors()
        self._closed = select.poll()
        for fd in self._descriptors:
            self._closed.register(fd, 0)
        self._seen = self._glance()

    def looks_clean(self) -> bool:
        """A glance at what jobs most likely leave: microseconds, after every job. False says that a closer
        look is due."""
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
            self._closed.poll(0),  # of no events: only descriptors that have been closed are told
            threading.active_count(),
            _cwd(),
            self._present_umask(),
            _variables() == self._was["environment"],
            list(map(_getsignal, _LIKELY_SIGNALS)),
            locale.setlocale(locale.LC_ALL),
            sys.stdin,
            sys.stdout,
            sys.stderr,
        )

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
    return variables.get("work_item") is None and bool(variables["work_queue"].empty())


def _descriptors() -> dict[int, tuple[int, int]]:
    """The open descriptors, and what each leads to."""
    found = {}
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):  # the listing's own
            about = os.fstat(int(name))
            found[int(name)] = about.st_dev, about.st_ino
    return found


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None


def _variables() -> Mapping[Any, Any]:
    # As the bytes that they are: to decode them for each comparison would cost twenty times as much.
    return getattr(os.environ, "_data", os.environ)


def _signals() -> dict[str, Any]:
    """Handlers by number, and besides these the blocked signals and the timers that run."""
    found: dict[Any, Any] = {number: _getsignal(number) for number in _SIGNALS}
    found["blocked"] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    found["timer"] = [timer for timer in _TIMERS if signal.getitimer(timer)[0]]
    return found


def _streams() -> dict[str, Any]:
    streams = {name: getattr(sys, name, None) for name in _STREAMS}
    return {name: (stream, getattr(stream, "closed", None)) for name, stream in streams.items()}


# --- in words


def _in_words(kind: str, was: Any, now: Any) -> str:
    if kind == "umask":
        return f"the umask is {now:03o}, was {was:03o}"
    if kind == "environment":  # not what they hold: that may be secret
        return f"environment variables were changed ({_some(map(os.fsdecode, _changed(was, now)))})"
    if kind == "signals":
        names = [_signal_name(each) for each in _changed(was, now)]
        return f"signal handling was changed ({_some(names)})"
    if kind == "limits":
        changed = [_LIMITS[number] for number in _changed(was, now)]
        return f"resource limits were changed ({_some(changed)})"
    if kind == "streams":
        return f"sys.{' and sys.'.join(_changed(was, now))} was replaced or closed"
    if kind == "user":
        return "the process's user or groups were changed"
    name = {"cwd": "working directory"}.get(kind, kind)
    return f"the {name} is {now}, was {was}"


def _signal_name(about: Any) -> str:
    if about == "blocked":
        return "signals are blocked"
    if about == "timer":
        return "a timer runs"
    with contextlib.suppress(ValueError):
        return signal.Signals(about).name
    return f"signal {about}"


def _changed(was: Mapping[Any, Any], now: Mapping[Any, Any]) -> list[Any]:
    missing = object()
    return [key for key in {**was, **now} if was.get(key, missing) != now.get(key, missing)]


def _some(names: Iterable[str], most: int = 5) -> str:
    named = sorted(names)
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")
