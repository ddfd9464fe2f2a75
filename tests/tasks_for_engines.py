"""Tasks for the engines' tests. Those that write a file say there how far they came."""

import asyncio
import contextvars
import ctypes
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from jobs import current_job, task

spilled: contextvars.ContextVar[str] = contextvars.ContextVar("spilled", default="clean")


@task
def nothing() -> None:
    pass


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
async def add_async(a: int, b: int = 1) -> int:
    await asyncio.sleep(0)
    return a + b


@task
def day_after(day: date) -> date:
    return date.fromordinal(day.toordinal() + 1)


@task
def pid() -> int:
    return os.getpid()


@task
def who() -> list[Any]:
    return [current_job.id, current_job.task, current_job.attempt, current_job.max_attempts]


@task
def spill() -> str:
    found = spilled.get()
    spilled.set("spilled")
    return found


@task
async def spill_async() -> str:
    found = spilled.get()
    spilled.set("spilled")
    return found


@task
def runs_a_loop() -> int:
    async def inner() -> int:
        await asyncio.sleep(0)
        return 7

    return asyncio.run(inner())


# --- failures


@task
def fails(text: str = "no") -> None:
    raise ValueError(text)


@task
async def fails_async(text: str = "no") -> None:
    raise ValueError(text)


@task
def raises(kind: str) -> None:
    raise {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "CancelledError": asyncio.CancelledError(),
        "GeneratorExit": GeneratorExit(),
        "StopIteration": StopIteration(),
    }[kind]


@task
async def raises_async(kind: str) -> None:
    raise {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "CancelledError": asyncio.CancelledError(),
        "GeneratorExit": GeneratorExit(),
    }[kind]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a message")

    __repr__ = __str__


@task
def fails_unspeakably() -> None:
    raise Unspeakable


@task
def fails_unprintably() -> None:
    raise ValueError("a\x00b\ud800c")


class Unpicklable(Exception):
    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")  # pickled with one argument, made again with two
        self.how = lambda: None  # and this is not pickled at all


@task
def fails_unpicklably() -> None:
    raise Unpicklable("it", "so")


class Twisted(Exception):
    def __str__(self) -> str:
        return str(self)

    __repr__ = __str__


@task
def recurses(how: str) -> None:
    def deeper() -> None:
        deeper()

    if how == "in its message":
        raise Twisted
    deeper()


@task
def returns_a_lambda() -> Any:
    return lambda: None


@task
def returns_text(length: int) -> str:
    return "x" * length


@task
async def leaves_a_suicidal_task_behind() -> str:
    async def leave() -> None:
        raise SystemExit(5)

    left = asyncio.create_task(leave())
    await asyncio.sleep(0.01)
    return str(left.done())


# --- long ones


@task
def sleeps(seconds: float, file: str | None = None) -> str:
    try:
        if file:
            Path(file).write_text("began")
        time.sleep(seconds)
    finally:
        if file:
            Path(file).write_text("cleaned up")
    return "slept"


@task
async def sleeps_async(seconds: float, file: str | None = None) -> str:
    try:
        if file:
            Path(file).write_text("began")
        await asyncio.sleep(seconds)
    finally:
        if file:
            Path(file).write_text("cleaned up")
    return "slept"


@task
def ignores_interrupts(file: str) -> None:
    Path(file).write_text("began")
    while True:
        try:
            time.sleep(30)
        except BaseException:
            Path(file).write_text("ignored")


@task
def answers_an_interrupt(file: str) -> str:
    Path(file).write_text("began")
    try:
        time.sleep(30)
    except BaseException:
        return "as far as I came"
    return "slept"


@task
def holds_the_gil(seconds: int) -> None:
    ctypes.PyDLL(None).sleep(seconds)


# --- what kills its process, or leaves something behind


@task
def dies(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)


@task
def kills_if(number: int, fatal: int) -> int:
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@task
def exits(code: int) -> None:
    os._exit(code)


@task
def closes_everything() -> None:
    os.closerange(0, 4096)


@task
def forks_and_returns_twice() -> int:
    os.fork()
    return os.getpid()


def _lingers(file: str) -> None:
    Path(file).write_text(str(os.getpid()))
    time.sleep(300)


@task
def leaves_a_daemon(file: str) -> int:
    """The classical daemon: forked twice, in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _lingers(file)
        os._exit(0)
    return _await_pid(file)


@task
def forks_a_daemon_and_sleeps(file: str, then: str) -> None:
    leaves_a_daemon.fn(file)
    time.sleep(300)


@task
def leaves_a_program(file: str, then: str = "return") -> int:
    """A program that was started to stay, and perhaps the end of its starter."""
    code = f"import os, time; open({file!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    found = _await_pid(file)
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "sleep":
        time.sleep(300)
    if then == "hold the GIL":
        ctypes.PyDLL(None).sleep(300)
    return found


def _await_pid(file: str) -> int:
    for _ in range(1000):
        if Path(file).exists() and (text := Path(file).read_text()):
            return int(text)
        time.sleep(0.01)
    raise TimeoutError


@task
def descriptors_of_a_program() -> list[str]:
    """What a program started without closing anything finds open."""
    code = (
        "import os\n"
        "for name in os.listdir('/proc/self/fd'):\n"
        "    if int(name) > 2 and os.path.exists(f'/proc/self/fd/{name}'):\n"
        "        print(os.readlink(f'/proc/self/fd/{name}'))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], close_fds=False, capture_output=True, text=True, check=True
    )
    return shown.stdout.split()


@task
def main_module() -> str | None:
    return getattr(sys.modules["__main__"], "__file__", None)


# --- submitting


@task
def submits(how_many: int) -> list[str]:
    return [add.delay(number).id for number in range(how_many)]


@task
async def submits_async() -> str:
    handle = await add_async.apply_async((1,), priority=3, countdown=5)
    return handle.id


@task
async def looks_up(job_id: str) -> str:
    handle = await add.delay(1)
    handle.job = type(handle.job)(id=job_id, task="x", created_at=0)
    await handle.refresh()
    await handle.cancel()
    return f"{handle.task} {handle.state}"


@task
async def waits_for_a_job() -> Any:
    return await (await add.delay(1)).result()


@task
def applies() -> int:
    return asyncio.run(add.apply((2, 3)).result())


@task
async def scheduling() -> tuple[int, str]:
    """The niceness of this process and, once the kernel has taken it, of its group."""
    path = Path("/proc/self/autogroup")
    group = f"nice {os.nice(0)}"
    while path.exists() and not path.read_text().strip().endswith(group):
        await asyncio.sleep(0.01)
    return os.nice(0), path.read_text().strip() if path.exists() else group
