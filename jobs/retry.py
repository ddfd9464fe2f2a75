"""When a failed attempt is tried again."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how far apart.

    The delay before attempt n + 1 is drawn evenly from 0 to `base * 2 ** (n - 1)` seconds, at most
    `max_delay`: exponential backoff with full jitter, which spreads a crowd of retries best
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    max_attempts: int = 1
    base: float = 1.0  #: seconds
    max_delay: float = 600.0  #: seconds

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.base < 0 or self.max_delay < 0:
            raise ValueError("max_attempts must be at least 1, base and max_delay not negative")

    def delay(self, attempts_spent: int) -> float:
        """Seconds to wait after that many attempts."""
        ceiling = self.base * 2 ** min(attempts_spent - 1, 30)
        return random.uniform(0, min(self.max_delay, ceiling))  # noqa: S311 - jitter, not a secret
