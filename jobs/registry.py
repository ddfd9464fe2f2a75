"""Tasks: functions that may run as jobs, by name."""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from pydantic import TypeAdapter

from . import current
from .errors import ConfigurationError, DuplicateTask, InvalidArguments, UnknownTask
from .functions import module_name, place, refuse_unimportable, same_function
from .hygiene import KINDS
from .retry import ONCE, RetryPolicy
from .signature import Signature
from .submission import NO_OPTIONS, Options

if TYPE_CHECKING:
    from .handle import JobHandle

_NAME = re.compile(r"[\w.:-]{1,200}")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Wishes(TypedDict, total=False):
    """What `apply_async` takes besides the arguments: see `jobs.submission.Options`."""

    countdown: float | None
    eta: datetime | None
    expires: float | datetime | None
    priority: int | None
    queue: str | None
    timeout: float | None
    max_attempts: int | None


class Task(Generic[P, R]):
    """A function that may run as a job. Called, it is still that function.

    `timeout` is in seconds; `carry` names what travels of `g` besides what the app carries for all;
    `after_request` runs the app's after-request functions when the job ends.

    In a child process a job may have `max_memory_mb` MiB more than the process had when it began (Linux);
    with `isolation="fresh"` it has a new process for itself. `keeps` names what the task means to leave in
    its process, of `jobs.hygiene.KINDS`: without that, a process with leftovers is replaced.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        carry: Collection[str] = (),
        after_request: bool = False,
        max_memory_mb: int | None = None,
        isolation: Literal["shared", "fresh"] = "shared",
        keeps: Collection[str] = (),
    ) -> None:
        refuse_unimportable(fn)
        if retry is not None and max_attempts is not None:
            raise ConfigurationError(
                f"task {fn.__qualname__}: give max_attempts or retry=RetryPolicy(max_attempts=…), not both"
            )
        if isinstance(carry, str):
            raise ConfigurationError(f"task {fn.__qualname__}: carry is a list of names")
        given: dict[str, Any] = {"queue": queue, "priority": priority, "timeout": timeout}
        try:
            if retry is None:
                retry = ONCE if max_attempts is None else RetryPolicy(max_attempts)
            if not isinstance(retry, RetryPolicy):
                raise ValueError(f"retry={retry!r} must be a RetryPolicy")
            retry.check()
            Options(**given)
        except InvalidArguments as error:
            name, wrong = error.problems[0].pointer[1:], error.problems[0].detail
            raise ConfigurationError(
                f"task {fn.__qualname__}: {name}={given[name]!r} {wrong}"
            ) from None
        except ValueError as error:
            raise ConfigurationError(f"task {fn.__qualname__}: {error}") from None
        if max_memory_mb is not None and max_memory_mb < 1:
            raise ConfigurationError(
                f"task {fn.__qualname__}: max_memory_mb is {max_memory_mb}; it is a number of MiB, at least 1"
            )
        if isolation not in ("shared", "fresh"):
            raise ConfigurationError(
                f'task {fn.__qualname__}: isolation is {isolation!r}; it is "shared" or "fresh"'
            )
        if isinstance(keeps, str) or (unknown := sorted(set(keeps) - set(KINDS))):
            raise ConfigurationError(
                f"task {fn.__qualname__}: keeps is a list of {', '.join(KINDS)}"
                + ("" if isinstance(keeps, str) else f"; not {', '.join(unknown)}")
            )
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.module = module_name(fn)
        self.name = f"{self.module}.{fn.__qualname__}" if name is None else name
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"{self.name!r} cannot be a task's name: it is part of an address, so 1 to 200 letters, digits"
                " and . _ - : make one"
            )
        self.queue, self.priority, self.timeout = queue, priority, timeout
        self.retry = retry
        self.carry = frozenset(carry)
        self.after_request = after_request
        self.max_memory_mb, self.isolation = max_memory_mb, isolation
        self.keeps = frozenset(keeps)
        self.is_async = inspect.iscoroutinefunction(fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    @overload
    def delay(
        self: "Task[P, Coroutine[Any, Any, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> "JobHandle[T]": ...
    @overload
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> "JobHandle[R]": ...
    def delay(self, *args: Any, **kwargs: Any) -> "JobHandle[Any]":
        """Submit a call with these arguments; await the handle to know that it is on disk.

        With no event loop running in this thread it returns once it is. Raises `InvalidArguments`,
        `NotRunning`.
        """
        return current.submitter().submit(self, self.bind(args, kwargs), NO_OPTIONS)

    @overload
    def apply_async(
        self: "Task[P, Coroutine[Any, Any, T]]",
        args: Sequence[Any] = ...,
        kwargs: Mapping[str, Any] | None = ...,
        **wishes: Unpack[Wishes],
    ) -> "JobHandle[T]": ...
    @overload
    def apply_async(
        self,
        args: Sequence[Any] = ...,
        kwargs: Mapping[str, Any] | None = ...,
        **wishes: Unpack[Wishes],
    ) -> "JobHandle[R]": ...
    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **wishes: Unpack[Wishes],
    ) -> "JobHandle[Any]":
        """`delay`, with wishes for this one job."""
        options = Options(**wishes)
        return current.submitter().submit(self, self.bind(args, kwargs or {}), options)

    @overload
    def apply(
        self: "Task[P, Coroutine[Any, Any, T]]",
        args: Sequence[Any] = ...,
        kwargs: Mapping[str, Any] | None = ...,
    ) -> "JobHandle[T]": ...
    @overload
    def apply(
        self, args: Sequence[Any] = ..., kwargs: Mapping[str, Any] | None = ...
    ) -> "JobHandle[R]": ...
    def apply(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> "JobHandle[Any]":
        """Run it here and now under the rules of a job, without keeping it."""
        return current.submitter().apply(self, self.bind(args, kwargs or {}))

    # The signature -----------------------------------------------------------------------------

    @functools.cached_property
    def signature(self) -> Signature:
        """What goes in and comes out. Raises `UnsupportedAnnotation`."""
        return Signature(self.fn, self.name)

    def resolve(self) -> None:
        """Resolve the annotations, strings included. Raises `UnsupportedAnnotation`."""
        _ = self.signature

    @property
    def args_adapter(self) -> TypeAdapter[dict[str, Any]]:
        """The arguments' type, for JSON Schemas (mode "validation")."""
        return self.signature.arguments

    @property
    def result_adapter(self) -> TypeAdapter[Any]:
        """The result's type, for JSON Schemas (mode "serialization")."""
        return self.signature.result

    def bind(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> str:
        """A Python call's arguments as JSON, an object by parameter name. Raises `InvalidArguments`."""
        return self.signature.bind(args, kwargs)

    def accept(self, raw: bytes | str, *, max_bytes: int | None = None) -> str:
        """A client's JSON arguments, an object or an array, as `bind` writes them; only what the
        published JSON Schema admits. Raises `InvalidArguments`."""
        return self.signature.accept(raw, max_bytes)

    @property
    def has_secrets(self) -> bool:
        """Whether it has parameters whose values are to be sealed."""
        return bool(self.signature.secret)

    @property
    def needs_secrets(self) -> bool:
        """Whether a call without secret arguments is none."""
        return self.signature.needs_secrets

    def split(self, args: str) -> tuple[str, str | None]:
        """What `bind` or `accept` wrote, without the secret arguments, and these alone, if there are any."""
        return self.signature.split(args)

    def load(self, args: str) -> dict[str, Any]:
        """What `bind` or `accept` wrote, by parameter name, in the annotated types."""
        return self.signature.load(args)

    def invoke(self, values: Mapping[str, Any]) -> Any:
        """Call the function with what `load` returned; of an async one, the coroutine."""
        return self.signature.invoke(values)

    def call(self, args: str) -> Any:
        """`invoke(load(args))`."""
        return self.signature.invoke(self.signature.load(args))

    def dump(self, result: Any, *, max_bytes: int | None = None) -> str:
        """A result as JSON, by the return annotation. Raises `InvalidJson` if it does not fit that."""
        return self.signature.dump(result, max_bytes)

    def load_result(self, text: str) -> Any:
        """What `dump` wrote, in the annotated type."""
        return self.signature.load_result(text)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class Registry:
    """Tasks by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}

    def add(self, task: Task[..., Any]) -> None:
        """Register a task. The same function, imported again, takes its earlier self's place; another
        one under the same name raises `DuplicateTask`."""
        known = self._tasks.get(task.name)
        if known is not None and not same_function(known.fn, task.fn):
            raise DuplicateTask(
                f"two tasks are named {task.name!r}: {place(known.fn)} and {place(task.fn)};"
                " give one of them another with @task(name=…)"
            )
        self._tasks[task.name] = task

    def get(self, name: str) -> Task[..., Any]:
        """The task of that name. Raises `UnknownTask` with the names nearest to it."""
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(name, difflib.get_close_matches(name, self._tasks, n=3)) from None

    def find(self, name: str) -> Task[..., Any] | None:
        """The task of that name, if there is one."""
        return self._tasks.get(name)

    def __getitem__(self, name: str) -> Task[..., Any]:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def values(self) -> Collection[Task[..., Any]]:
        """The tasks, in the order they were registered."""
        return self._tasks.values()

    def resolve(self) -> None:
        """Resolve every task's annotations. Raises `UnsupportedAnnotation`."""
        for task in self._tasks.values():
            task.resolve()


default_registry = Registry()
"""Where `@task` registers."""


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = ...,
    queue: str = ...,
    priority: int = ...,
    timeout: float | None = ...,
    retry: RetryPolicy | None = ...,
    max_attempts: int | None = ...,
    carry: Collection[str] = ...,
    after_request: bool = ...,
    max_memory_mb: int | None = ...,
    isolation: Literal["shared", "fresh"] = ...,
    keeps: Collection[str] = ...,
    registry: Registry = ...,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    registry: Registry = default_registry,
    **options: Any,
) -> Any:
    """Register a module-level function as a task: `@task`, or `@task(queue="slow", …)`.

    The name is `module.qualname` unless given. Raises `ConfigurationError` for what a child process
    could not import, and `DuplicateTask`.
    """

    def register(fn: Callable[..., Any]) -> Task[..., Any]:
        made: Task[..., Any] = Task(fn, **options)
        registry.add(made)
        return made

    return register if fn is None else register(fn)
