"""What may be a task, under which name, and that it is still the function it was."""

import asyncio
import functools
import importlib
import inspect
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import current
from jobs.errors import (
    ConfigurationError,
    DuplicateTask,
    InvalidArguments,
    NotRunning,
    UnknownTask,
)
from jobs.registry import Registry, Task, task
from jobs.retry import RetryPolicy
from jobs.submission import NO_OPTIONS, Options


def plain(a: int, b: str = "x") -> str:
    """Says a and b."""
    return f"{a}{b}"


async def slow(a: int) -> int:
    return a


def registered(fn: Callable[..., Any], **options: Any) -> Task[..., Any]:
    return task(registry=Registry(), **options)(fn)


def test_a_task_is_still_the_function() -> None:
    made = registered(plain)
    assert made(1, b="y") == "1y"
    assert made.__doc__ == "Says a and b."
    assert made.__name__ == "plain"
    assert made.__wrapped__ is plain  # type: ignore[attr-defined]
    assert inspect.signature(made) == inspect.signature(plain)
    assert asyncio.run(registered(slow)(2)) == 2
    assert (made.is_async, registered(slow).is_async) == (False, True)


def test_the_name_is_module_and_qualname_unless_given() -> None:
    assert registered(plain).name == f"{__name__}.plain"
    assert registered(plain, name="say").name == "say"
    assert registered(plain).module == __name__


def test_options_have_defaults_and_are_kept() -> None:
    made = registered(plain)
    assert (made.queue, made.priority, made.timeout) == ("default", 0, None)
    assert (made.retry, made.carry, made.after_request) == (RetryPolicy(), frozenset(), False)
    made = registered(
        plain,
        queue="q",
        priority=5,
        timeout=1.5,
        max_attempts=3,
        carry=["user"],
        after_request=True,
    )
    assert (made.queue, made.priority, made.timeout) == ("q", 5, 1.5)
    assert (made.retry.max_attempts, made.carry, made.after_request) == (3, {"user"}, True)


@pytest.mark.parametrize(
    "options",
    [
        {"queue": "a b"},
        {"priority": 1001},
        {"timeout": -1},
        {"max_attempts": 0},
        {"max_attempts": 2, "retry": RetryPolicy(3)},
        {"carry": "user"},
    ],
)
def test_a_wrong_option_is_refused_naming_the_function(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="plain"):
        registered(plain, **options)


class Recorder:
    """Takes submissions and only notes them."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def submit(self, submitted: Task[..., Any], args: str, options: Options) -> Any:
        self.taken.append((submitted.name, args, options))

    def apply(self, applied: Task[..., Any], args: str) -> Any:
        self.taken.append((applied.name, args))

    def owns_context(self) -> None:
        return None


def test_submissions_carry_checked_arguments_and_options() -> None:
    made, recorder = registered(plain, name="t"), Recorder()
    current.opened(recorder)
    try:
        made.delay(1, b="y")
        made.apply_async((1,), {"b": "z"}, countdown=5, queue="q")
        made.apply([2])
        for refused in (
            lambda: made.delay("x"),  # type: ignore[arg-type]
            lambda: made.apply_async((1,), countdown=-1),
            lambda: made.apply_async((1,), max_attempts=0),
            lambda: made.apply_async((1,), timeout=-1),
            lambda: made.apply(),
        ):
            with pytest.raises(InvalidArguments):
                refused()  # type: ignore[no-untyped-call]
    finally:
        current.closed(recorder)
    assert recorder.taken == [
        ("t", '{"a":1,"b":"y"}', NO_OPTIONS),
        ("t", '{"a":1,"b":"z"}', Options(countdown=5, queue="q")),
        ("t", '{"a":2}'),
    ]


def test_a_submission_where_nothing_is_open_says_so() -> None:
    with pytest.raises(NotRunning, match="test_app"):
        registered(plain).delay(1)


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Group:
    def method(self) -> None: ...


def unwrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


def wrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(fn)(unwrapped(fn))


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (generator, "generator"),
        (async_generator, "generator"),
        (lambda: 1, "lambda"),
        (Group, "no function"),
        (Group(), "no function"),
        (Group.method, "method"),
        (functools.partial(plain, 1), "no function"),
        (len, "no function"),
        (unwrapped(plain), "functools.wraps"),
    ],
)
def test_what_a_child_could_not_import_is_refused(what: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot be a task: .*{why}"):
        registered(what)


def test_a_function_within_a_function_is_refused() -> None:
    def inner() -> None: ...

    with pytest.raises(ConfigurationError, match="inside another function"):
        registered(inner)


def test_a_decorated_function_keeps_its_signature() -> None:
    made = registered(wrapped(plain))
    assert made.bind((1,), {"b": "z"}) == '{"a":1,"b":"z"}'
    assert made.call('{"a":1,"b":"z"}') == "1z"


def test_an_unknown_name_comes_with_the_nearest() -> None:
    registry = Registry()
    for name in ("text.stats", "csv.stats", "mail"):
        task(name=name, registry=registry)(plain if name == "mail" else slow)
    with pytest.raises(UnknownTask, match=r"'text\.stat'; did you mean text\.stats"):
        registry.get("text.stat")
    with pytest.raises(UnknownTask) as caught:
        registry.get("zzz")
    assert caught.value.matches == ()
    assert registry.find("zzz") is None
    assert "mail" in registry
    assert list(registry) == ["text.stats", "csv.stats", "mail"]


def test_two_functions_of_one_name_are_refused_with_both_places() -> None:
    registry = Registry()
    task(name="t", registry=registry)(plain)
    with pytest.raises(DuplicateTask) as caught:
        task(name="t", registry=registry)(slow)
    for fn in (plain, slow):
        assert f"{__file__}:{fn.__code__.co_firstlineno}" in str(caught.value)


SOURCE = """
from jobs.registry import Registry, task
registry = Registry()
@task(registry=registry)
def work() -> int:
    return 1
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / "reloaded_tasks.py"
    sys.modules.pop("reloaded_tasks", None)


def test_reloading_a_module_replaces_its_tasks(module: Path) -> None:
    module.write_text(
        SOURCE.replace(
            "registry = Registry()", "registry = globals().get('registry') or Registry()"
        )
    )
    loaded = importlib.import_module("reloaded_tasks")
    first = loaded.registry.get("reloaded_tasks.work")
    importlib.reload(loaded)
    assert loaded.registry.get("reloaded_tasks.work") is not first
    module.write_text("# moved\n\n" + module.read_text().replace("return 1", "return 2"))
    importlib.reload(loaded)
    assert loaded.registry.get("reloaded_tasks.work")() == 2


def test_a_function_defined_twice_in_a_module_is_refused(module: Path) -> None:
    module.write_text(SOURCE + SOURCE.split("Registry()\n")[1])
    with pytest.raises(DuplicateTask, match=r"reloaded_tasks\.py:4 and .*reloaded_tasks\.py:7"):
        importlib.import_module("reloaded_tasks")


def test_a_scripts_tasks_are_named_as_its_file_is_imported(tmp_path: Path) -> None:
    script = tmp_path / "my_script.py"
    script.write_text(
        textwrap.dedent("""
        from jobs.registry import task
        @task
        def work() -> None: ...
        if __name__ == "__main__":
            import my_script
            print(work.name, work.module, my_script.work.name)
        """)
    )
    said = "my_script.work my_script my_script.work\n"
    for command in ([str(script)], ["-m", "my_script"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=50
        )
        assert (done.stdout, done.stderr) == (said, "")


@pytest.mark.parametrize("name", ["a/b", "", "a b", "x" * 201, "a?b", "a\n"])
def test_a_name_that_cannot_be_part_of_an_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="address"):
        task(name=name, registry=Registry())(plain)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_memory_mb": 0}, "max_memory_mb is 0; it is a number of MiB, at least 1"),
        ({"isolation": "new"}, 'isolation is \'new\'; it is "shared" or "fresh"'),
        ({"keeps": "threads"}, "keeps is a list of threads, "),
        ({"keeps": ["threads", "hats"]}, "not hats"),
    ],
)
def test_what_a_task_asks_of_its_process_is_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Task(plain, **options)
    assert said in str(caught.value)
    assert "plain" in str(caught.value)
