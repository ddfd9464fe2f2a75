"""Tasks that leave something behind, and one that looks at what it finds."""

import asyncio
import contextlib
import locale
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jobs import task


def state() -> dict[str, Any]:
    """What a job can see of its process."""
    return {
        "threads": threading.active_count(),
        "descriptors": [os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in range(3)],
        "cwd": os.getcwd(),
        "umask": os.umask(0o022) or os.umask(0o022),
        "environment": sorted(os.environ),
        "signals": [str(signal.getsignal(signal.SIGUSR1)), signal.getitimer(signal.ITIMER_REAL)],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "limits": [resource.getrlimit(n) for n in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
        "locale": locale.setlocale(locale.LC_ALL),
        "streams": [type(sys.stdin).__name__, type(sys.stdout).__name__, type(sys.stderr).__name__],
        "nice": os.nice(0),
    }


def _thread() -> None:
    threading.Thread(target=time.sleep, args=(60,), name="left", daemon=True).start()


def _busy_pool() -> None:
    ThreadPoolExecutor(1, thread_name_prefix="pool").submit(time.sleep, 60)


def _close_stdin() -> None:
    os.close(0)


def _close_stdout() -> None:
    os.close(1)


def _replace_stderr() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def _chdir() -> None:
    os.chdir("/")


def _umask() -> None:
    os.umask(0o077)


def _environment() -> None:
    os.environ["LEFT_BEHIND"] = "secret"


def _no_environment() -> None:
    del os.environ["PATH"]


def _handler() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)


def _blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])


def _alarm() -> None:
    signal.alarm(60)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))


def _core_limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))


def _locale() -> None:
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    locale.setlocale(locale.LC_NUMERIC, "C")
    locale.setlocale(locale.LC_ALL, "C" if locale.setlocale(locale.LC_ALL) != "C" else "C.UTF-8")


def _stdout() -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - left open, that is the point


def _nice() -> None:
    os.nice(1)


def _descriptors() -> None:
    for _ in range(150):
        os.open("/dev/null", os.O_RDONLY)


def _nothing() -> None:
    pass


MESSES: dict[str, Callable[[], None]] = {
    name.removeprefix("_"): value
    for name, value in list(globals().items())
    if name.startswith("_") and not name.startswith("__") and callable(value)
}


@task
def mess(what: str) -> int:
    MESSES[what]()
    return os.getpid()


@task
async def mess_async() -> int:
    asyncio.get_running_loop().create_task(asyncio.sleep(60))
    return os.getpid()


@task
def look() -> tuple[int, dict[str, Any]]:
    return os.getpid(), state()


@task(keeps=["threads", "cwd"])
def keeps_a_thread() -> int:
    _thread()
    os.chdir("/")
    return os.getpid()


@task
def leaves_a_file_open() -> int:
    return os.dup(0) * 0 + os.getpid()


@task
async def in_a_thread(seconds: float = 0, left: float = 0) -> int:
    """Work in the loop's thread pool, and perhaps work that is left there."""
    await asyncio.to_thread(time.sleep, seconds)
    if left:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, left)
    return os.getpid()


@task(isolation="fresh")
def fresh() -> int:
    return os.getpid()


@task(isolation="fresh", max_attempts=3)
def fresh_at_last(file: str) -> list[int]:
    """Fails twice; returns the processes of all its attempts."""
    with Path(file).open("a+") as pids:
        pids.write(f"{os.getpid()}\n")
        pids.seek(0)
        found = [int(line) for line in pids]
    if len(found) < 3:
        raise ValueError(len(found))
    return found


@task
def shared() -> int:
    return os.getpid()


@task
def waits(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


hoard: list[bytes] = []


@task
def grows(mb: int) -> int:
    hoard.append(b"x" * (mb * 1_048_576))
    return os.getpid()


@task(max_memory_mb=64)
def needs(mb: int, how: str = "at once") -> int:
    if how == "at once":
        return len(bytearray(mb * 1_048_576))
    if how == "in small pieces":
        return len([{"number": number} for number in range(mb * 4_000)])
    if how == "in a program":
        code = f"bytearray({mb} * 1048576)"
        return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode
    if how == "and stays":
        with contextlib.suppress(MemoryError):
            hoard.extend(bytes(65_536) for _ in range(mb * 16))
        time.sleep(300)
    return late["needs"](mb)


# CPython unwinds to a handler that far into a function with a number for which there may be no memory.
late: dict[str, Any] = {}
exec(
    "def needs(mb):\n" + "    number = 0\n" * 300 + "    hoard = []\n"
    "    try:\n"
    "        for number in range(mb * 4_000):\n"
    "            hoard.append({'number': number})\n"
    "    finally:\n"
    "        number = len(hoard)\n"
    "    return number\n",
    late,
)


@task(max_memory_mb=64)
async def needs_async(mb: int) -> int:
    await asyncio.sleep(0)
    return len(bytearray(mb * 1_048_576))


@task
def oom_scores() -> list[int]:
    """Of this process, and of a program that it starts."""
    code = "print(open('/proc/self/oom_score_adj').read())"
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return [int(Path("/proc/self/oom_score_adj").read_text()), int(program.stdout)]


@task
def eats_all() -> None:
    while True:
        hoard.append(b"x" * 1_048_576)
