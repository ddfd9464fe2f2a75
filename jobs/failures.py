"""An exception in a job as a `JobError`: words that any store can hold, and only the task's own frames.

An exception is user code too: its `str` may raise, or be ten megabytes of lone surrogates.
"""

import asyncio
import concurrent.futures
import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from traceback import StackSummary, TracebackException

from .model import ErrorKind, Invocation, JobError
from .protocols import Interrupt

MAX_NAME = 500  #: characters
MAX_MESSAGE = 10_000  #: characters
MAX_TRACEBACK = 100_000  #: characters

_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_OURS = str(Path(__file__).parent)
_MACHINERY = (
    _OURS,
    str(Path(asyncio.__file__).parent),
    str(Path(concurrent.futures.__file__).parent),
    contextlib.__file__,
    threading.__file__,
)


def failure(error: BaseException, kind: ErrorKind = ErrorKind.EXCEPTION) -> JobError:
    """What to keep of an exception."""
    try:
        message = str(error)
    except BaseException as unprintable:  # noqa: BLE001 - user code, which may raise anything
        message = f"<its message could not be written: {type(unprintable).__name__}>"
    name = _keepable(type(error).__name__, MAX_NAME)
    return JobError(kind, name, _keepable(message, MAX_MESSAGE), traceback(error))


def traceback(error: BaseException) -> str:
    """The traceback as text, from the task's own frames on."""
    try:
        told = TracebackException.from_exception(error, compact=True)
        for part in _with_causes(told):
            part.stack = _task_frames(part.stack)
        text = "".join(told.format())
    except BaseException as unprintable:  # noqa: BLE001 - as above
        text = f"<the traceback could not be written: {type(unprintable).__name__}>\n"
    return _keepable(text, MAX_TRACEBACK)


def interrupted(
    why: Interrupt, invocation: Invocation, *, killed: bool, trace: str | None = None
) -> JobError:
    """What to keep of an attempt that was stopped on purpose."""
    force = "; it did not stop when asked to, so its process was killed" if killed else ""
    if why is Interrupt.TIMEOUT:
        message = f"the attempt ran longer than its {invocation.timeout:g} s{force}"
        return JobError(ErrorKind.TIMEOUT, "Timeout", message, trace)
    return JobError(ErrorKind.CANCELLED, "Cancelled", f"cancelled while it ran{force}", trace)


def _keepable(text: str, limit: int) -> str:
    if len(text) > limit:
        half = limit // 2 - 50
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return _UNKEEPABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _with_causes(told: TracebackException) -> Iterator[TracebackException]:
    found, seen = [told], set()
    while found:
        part = found.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        found += [each for each in (part.__cause__, part.__context__) if each is not None]
        found += part.exceptions or []


def _task_frames(stack: StackSummary) -> StackSummary:
    """Without the frames that led to the task, and those of the signal handler that stopped it."""
    frames = list(stack)
    first = 0
    while first < len(frames) and frames[first].filename.startswith(_MACHINERY):
        first += 1
    last = len(frames)
    while last > first and frames[last - 1].filename.startswith(_OURS):
        last -= 1
    return StackSummary.from_list(frames[first:last])
