"""What a habitat sees of what has changed in this process, each put right again."""

import asyncio
import contextlib
import gc
import locale
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from jobs.hygiene import KINDS, MANY_DESCRIPTORS, Habitat
from tests.running import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")


@pytest.fixture(autouse=True, scope="module")
def quiet() -> None:
    """What other tests have left in this process, collected or about to end, is no change of ours."""
    for _ in range(100):
        gc.collect()
        habitat = Habitat()
        time.sleep(0.2)
        if not habitat.differences() and habitat.looks_clean():
            return
    pytest.fail("this process does not come to rest")


@contextmanager
def a_thread() -> Iterator[None]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="left behind")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextmanager
def closed_input() -> Iterator[None]:
    kept = os.dup(0)
    os.close(0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@contextmanager
def another_error_stream() -> Iterator[None]:
    kept, other = os.dup(2), os.open("/dev/full", os.O_RDWR)
    os.dup2(other, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(other)


@contextmanager
def umask() -> Iterator[None]:
    before = os.umask(0o123)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def variable() -> Iterator[None]:
    os.environ["LEFT_BEHIND"] = "hush"
    try:
        yield
    finally:
        del os.environ["LEFT_BEHIND"]


@contextmanager
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def timer() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def mask() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])


@contextmanager
def limit(which: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (soft - 1 if soft > 0 else 2**40, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


@contextmanager
def other_locale() -> Iterator[None]:
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "C" if before != "C" else "C.UTF-8")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


LEFT: dict[str, tuple[Callable[[], contextlib.AbstractContextManager[object]], str, str]] = {
    "a thread": (a_thread, "threads", "threads still run (left behind)"),
    "a closed descriptor": (closed_input, "descriptors", "closed or replaced (0)"),
    "a replaced descriptor": (another_error_stream, "descriptors", "closed or replaced (2)"),
    "the working directory": (lambda: contextlib.chdir("/"), "cwd", "working directory is /"),
    "the umask": (umask, "umask", "the umask is 123"),
    "a variable": (variable, "environment", "changed (LEFT_BEHIND)"),
    "a handler": (handler, "signals", "SIGUSR1"),
    "a timer": (timer, "signals", "a timer runs"),
    "a blocked signal": (mask, "signals", "signals are blocked"),
    "a limit": (lambda: limit(resource.RLIMIT_NOFILE), "limits", "RLIMIT_NOFILE"),
    "another limit": (lambda: limit(resource.RLIMIT_MSGQUEUE), "limits", "RLIMIT_MSGQUEUE"),
    "the locale": (other_locale, "locale", "the locale is C"),
    "a stream": (
        lambda: contextlib.redirect_stdout(sys.__stderr__),
        "streams",
        "sys.stdout was replaced",
    ),
}

BY_A_CLOSE_LOOK_ONLY = {"another limit"}


@pytest.mark.parametrize("left", LEFT)
def test_what_is_left_is_named_and_what_is_put_right_is_clean(left: str) -> None:
    change, kind, said = LEFT[left]
    habitat = Habitat()
    assert habitat.differences() == {}
    with change():
        assert habitat.looks_clean() is (left in BY_A_CLOSE_LOOK_ONLY)
        found = habitat.differences()
        assert list(found) == [kind]
        assert said in found[kind]
        assert "hush" not in found[kind]
        assert not habitat.looks_clean() or left in BY_A_CLOSE_LOOK_ONLY
    assert habitat.differences() == {}
    assert habitat.looks_clean()


@pytest.mark.parametrize("left", LEFT)
def test_what_is_kept_belongs_to_the_process(left: str) -> None:
    change, kind, _ = LEFT[left]
    habitat = Habitat()
    with change():
        assert habitat.differences([kind]) == {}
        assert habitat.differences() == {}
        assert habitat.looks_clean() or left == "a closed descriptor"


def test_every_kind_is_a_word_for_what_a_task_keeps() -> None:
    assert {kind for _, kind, _ in LEFT.values()} <= set(KINDS)


def test_a_thread_that_is_about_to_end_is_waited_for() -> None:
    habitat = Habitat()
    thread = threading.Timer(0.003, lambda: None)
    thread.start()
    assert habitat.differences() == {}
    assert not thread.is_alive()


def test_a_pool_without_work_may_stay_and_is_watched() -> None:
    habitat = Habitat()
    end = threading.Event()
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        stack.callback(end.set)
        pool.submit(int).result()
        assert habitat.differences() == {}
        assert habitat.looks_clean()
        working = pool.submit(end.wait)
        assert not habitat.looks_clean()
        assert list(habitat.differences()) == ["threads"]
        end.set()
        working.result()
        until(lambda: not habitat.differences())


def test_open_descriptors_may_stay_as_long_as_they_are_not_many() -> None:
    habitat = Habitat()
    with ExitStack() as stack:
        for _ in range(MANY_DESCRIPTORS):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        assert habitat.differences() == {}
        assert habitat.looks_clean()
        stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        assert "101 descriptors were left open" in habitat.differences()["descriptors"]
    assert habitat.differences() == {}


def test_what_is_left_on_the_loop_is_named_once_it_has_had_time_to_end() -> None:
    loop = asyncio.new_event_loop()
    habitat = Habitat(lambda: loop)

    async def leave(seconds: float) -> None:
        loop.create_task(asyncio.sleep(seconds)).add_done_callback(ended.append)

    ended: list[object] = []
    loop.run_until_complete(leave(0))
    loop.call_soon(loop.stop)
    assert habitat.differences() == {}
    assert ended
    loop.run_until_complete(leave(60))
    assert not habitat.looks_clean()
    assert habitat.differences() == {"tasks": "asyncio tasks still run (sleep)"}
    assert habitat.differences(["tasks"]) == {}
    assert habitat.looks_clean()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
