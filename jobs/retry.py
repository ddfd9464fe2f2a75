"""When a failed attempt is tried again: by the task's policy, or because the job says so."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime

from .errors import JobsError
from .submission import Options, seconds, whole_attempts

Classes = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which failures are tried again, how often, and how far apart.

    `on` and `never` are exception classes, or tuples of them; `never` wins. A timeout counts as
    `TimeoutError`, whatever the task made of being stopped.

    The delay before attempt n + 1 is drawn evenly from 0 to `base * 2 ** (n - 1)` seconds, at most
    `max_delay`: exponential backoff with full jitter, which spreads a crowd of retries best
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    max_attempts: int = 1
    on: Classes = (Exception,)
    never: Classes = ()
    base: float = 1.0  #: seconds
    max_delay: float = 600.0  #: seconds

    def check(self) -> None:
        """Raise `ValueError`, naming the value, if one is wrong: called where the task's name is known."""
        for name, check in (
            ("max_attempts", whole_attempts),
            ("on", _classes),
            ("never", _classes),
            ("base", seconds),
            ("max_delay", seconds),
        ):
            if wrong := check(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r} {wrong}")

    def covers(self, error: type[BaseException]) -> bool:
        """Whether an attempt that failed with such an exception may be tried again."""
        return issubclass(error, self.on) and not issubclass(error, self.never)

    def delay(self, attempts_spent: int) -> float:
        """Seconds to wait after that many attempts."""
        ceiling = self.base * 2 ** min(attempts_spent - 1, 30)
        return random.uniform(0, min(self.max_delay, ceiling))  # noqa: S311 - jitter, not a secret


ONCE = RetryPolicy()
"""What holds where a task says nothing."""


def _classes(value: object) -> str:
    classes = value if isinstance(value, tuple) else (value,)
    if all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        return ""
    return "must be an exception class, or a tuple of them"


class Retry(JobsError):
    """Raised by a job to run once more, even where the policy has no attempt left; up to 100 in all.

    It runs again after `countdown` seconds, or at `eta` (an aware datetime); with neither, after the
    policy's own delay. Raises `InvalidArguments` for a time that is none, or two.
    """

    def __init__(
        self,
        reason: str = "the job asked to run once more",
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
    ) -> None:
        if not isinstance(reason, str):
            raise TypeError(f"Retry({reason!r}): the reason is text; the delay is countdown=…")
        Options(countdown=countdown, eta=eta)
        super().__init__(reason)
        self.countdown, self.eta = countdown, eta

    def delay(self, otherwise: float) -> float:
        """Seconds until it is to run again; `otherwise`, if it does not say."""
        if self.eta is not None:
            return max(0.0, (self.eta - datetime.now(UTC)).total_seconds())
        return otherwise if self.countdown is None else self.countdown


class Reject(JobsError):
    """Raised by a job to fail at once: no further attempt, whatever the policy."""

    def __init__(self, reason: str = "the job asked not to run again") -> None:
        super().__init__(reason)
