"""Tasks for the engines' tests. Those that write a file say there how far they came."""

import asyncio
import contextlib
import contextvars
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any

from jobs import Reject, Retry, RetryPolicy, current_job, task

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
    job = current_job
    return [job.id, job.task, job.attempt, job.max_attempts, job.owner]


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


RAISED = {
    "ValueError": ValueError,
    "KeyError": KeyError,
    "TimeoutError": TimeoutError,
    "SystemExit": SystemExit,
    "Retry": Retry,
    "Reject": Reject,
}


@task(retry=RetryPolicy(3, on=LookupError, never=(IndexError,)))
def fails_as(kind: str) -> None:
    raise RAISED.get(kind, IndexError)("no")


@task(retry=RetryPolicy(3))
async def fails_as_async(kind: str) -> None:
    raise RAISED[kind]("no")


@task(retry=RetryPolicy(base=4.0))
def asks_again(countdown: float | None = None, eta: datetime | None = None) -> None:
    raise Retry("the tide is out", countdown=countdown, eta=eta)


@task
def asks_again_of_current_job(countdown: float) -> None:
    try:
        raise LookupError("no boat")
    except LookupError:
        current_job.retry(countdown=countdown)


@task
def gives_up() -> None:
    raise Reject("wrong harbour")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a message")

    __repr__ = __str__


@task
def fails_unspeakably() -> None:
    raise Unspeakable


class Fatal(Exception):
    """Whoever prints it is to exit."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Bottomless(Exception):
    def __repr__(self) -> str:
        return repr(self)

    def __str__(self) -> str:
        return repr(self)


class Demanding(Exception):
    """Pickles, and fails to unpickle."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class Unmade(Retry):
    """Whose maker left its parts out."""

    def __init__(self) -> None:
        pass


ODD = {
    "Unmade": Unmade,
    "Fatal": Fatal,
    "Bottomless": Bottomless,
    "Demanding": lambda: Demanding(1, 2),
    "huge": lambda: ValueError("x" * 10_000_000),
    "unpicklable": lambda: ValueError(threading.Lock()),
    "long name": type("A" * 10_000, (Exception,), {}),
    "group": lambda: ExceptionGroup("both", [ValueError("one"), KeyError("two")]),
    "noted": lambda: _noted(ValueError("no"), "a note \0 \ud800"),
}


def _noted(error: Exception, note: str) -> Exception:
    error.add_note(note)
    return error


@task
def fails_oddly(how: str) -> None:
    raise ODD[how]()


@task
async def fails_oddly_async(how: str) -> None:
    raise ODD[how]()


@task
def recurs(depth: int = 0) -> int:
    return recurs.fn(depth + 1)


@task
async def recurs_async(depth: int = 0) -> int:
    return await recurs_async.fn(depth + 1)


@task
def returns_a_deep_list(depth: int) -> Any:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


@task
def returns_itself() -> Any:
    made: list[Any] = []
    made.append(made)
    return made


@task
def returns_odd_text() -> str:
    return "a\0b"


@task
def fails_unprintably() -> None:
    raise ValueError("a\x00b\ud800c")


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


# --- what writes


@task
def writes(text: str, times: int = 1) -> None:
    """To stdout, past Python's buffers."""
    left = memoryview(text.encode() * times)
    while left:
        left = left[os.write(1, left) :]


@task
def speaks() -> None:
    print("out 1")
    print("err 2", file=sys.stderr)
    logging.getLogger("shop.mail").info("log %d", 3)
    logging.getLogger("shop.mail").debug("never seen")
    subprocess.run(["echo", "program 4"], check=True)
    print("out 5", end="")


@task
async def speaks_async() -> None:
    print("out 1")
    await asyncio.sleep(0)
    print("err 2", file=sys.stderr)
    logging.getLogger("shop.mail").info("log %d", 3)
    program = await asyncio.create_subprocess_exec("echo", "program 4")
    await program.wait()
    print("out 5", end="")


@task
def writes_bytes() -> None:
    os.write(1, b"a\x00b\xffc\r\n")
    print("d\ud800")


@task
def floods(megabytes: int, with_a_program: bool) -> None:
    print("the beginning")
    if with_a_program:
        subprocess.run(f"yes | head -c {megabytes}M", shell=True, check=True)
    else:
        piece = b"y\n" * 524_288
        for _ in range(megabytes):
            os.write(1, piece)
    print("the end")


@task
def speaks_and(then: str) -> None:
    print("before the end")
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "exit":
        os._exit(3)
    if then == "read at null":
        ctypes.string_at(0)
    if then == "hang":
        time.sleep(30)
    if then == "raise":
        raise ValueError(then)


@task
def writes_while_it_holds_the_gil(megabytes: int) -> None:
    size = megabytes << 20
    ctypes.PyDLL(None).write(1, b"y" * size, size)


@task
def closes_its_output() -> None:
    print("before", flush=True)
    os.close(1)
    os.close(2)


@task
def makes_its_output_non_blocking() -> None:
    os.set_blocking(1, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(1, b"y" * 65_536)


@task
def ignores_interrupts_aloud() -> None:
    print("began")
    while True:
        try:
            time.sleep(30)
        except BaseException:
            print("ignored")


@task
def where_its_output_goes() -> bool:
    """Whether not where the forkserver's own pipe; the forkserver has what the service had."""
    own, forkservers = os.stat(1), os.stat(f"/proc/{os.getppid()}/fd/1")
    return (own.st_dev, own.st_ino) != (forkservers.st_dev, forkservers.st_ino)


@task
def uses(megabytes: int = 0, cpu: float = 0.0, in_a_program: bool = False) -> None:
    taken = b"x" * (megabytes << 20)
    code = f"import time\nwhile time.process_time() < {cpu}: pass"
    if in_a_program:
        subprocess.run([sys.executable, "-S", "-c", code], check=True)
    else:
        end = time.thread_time() + cpu
        while time.thread_time() < end:
            pass
    del taken


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


@task
def asks_whether_to_stop(file: str) -> str:
    """Whether it is to stop: at first, and when it has been interrupted, here and in a thread."""
    before = current_job.cancelled()
    Path(file).write_text("began")
    try:
        time.sleep(30)
    except BaseException:
        seen: list[bool] = []
        context = contextvars.copy_context()
        asking = lambda: seen.append(current_job.cancelled())  # noqa: E731
        thread = threading.Thread(target=context.run, args=(asking,))
        thread.start()
        thread.join()
        return f"{before} {current_job.cancelled()} {seen}"
    return "slept"


@task
async def asks_whether_to_stop_async(file: str) -> str:
    before = current_job.cancelled()
    Path(file).write_text("began")
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        return (
            f"{before} {current_job.cancelled()} [{await asyncio.to_thread(current_job.cancelled)}]"
        )
    return "slept"


@task
def stops_when_asked(file: str) -> None:
    """A thread does the work, and looks up now and then; nothing can interrupt it."""

    def work() -> None:
        Path(file).write_text("began")
        while not current_job.cancelled():
            time.sleep(0.005)
        raise RuntimeError("as asked")

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(contextvars.copy_context().run, work)
        while True:
            try:
                future.result()
            except RuntimeError:
                raise
            except BaseException:
                continue  # what was to interrupt it


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


# --- what a job says of itself


@task
def reports(steps: int, message: str | None = None) -> None:
    for step in range(1, steps + 1):
        current_job.progress(step, steps, message)


@task
async def reports_async(steps: int, message: str | None = None) -> None:
    for step in range(1, steps + 1):
        current_job.progress(step, steps, message)


@task
def reports_from_a_thread(steps: int) -> None:
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(reports.fn, steps))
    thread.start()
    thread.join()


@task
async def reports_until(steps: int, file: str) -> None:
    """Report all the steps at once, then run until the file is there."""
    for step in range(1, steps + 1):
        current_job.progress(step)
    while not Path(file).exists():
        await asyncio.sleep(0.005)


@task
def reports_what_it_may_not() -> list[str]:
    said = []
    for wrong in (-1, float("nan"), float("inf"), 2**53 + 1, True, "1", None):
        for args in ((wrong,), (1, wrong)):
            try:
                current_job.progress(*args)
            except ValueError as error:
                said.append(str(error))
    try:
        current_job.progress(1, 2, b"bytes")
    except ValueError as error:
        said.append(str(error))
    return said


@task
def writes_until(text: str, file: str) -> None:
    """Write, then run until the file is there."""
    print(text, end="", flush=True)
    while not Path(file).exists():
        time.sleep(0.005)
