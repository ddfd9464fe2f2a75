"""Whom a request counts for, where requests have a rate: its caller, or an address while nobody knows that."""

from collections.abc import Hashable
from contextvars import ContextVar
from time import monotonic_ns

from jobs.settings import Settings
from service.rate import SECOND, RateLimiter

from .problems import RATE_LIMITED, Refusal


class Rates:
    """What each caller and each address has used up of `rate_limit`, which the settings must have.

    The two are kept apart: so who has many addresses cannot have callers forgotten."""

    def __init__(self, settings: Settings) -> None:
        assert settings.rate_limit is not None
        limit, burst = settings.rate_limit, settings.rate_burst
        self.callers, self.addresses = RateLimiter(limit, burst), RateLimiter(limit, burst)
        at_once = f", {burst} at once" if burst else ""
        self.said = f"a client may send {limit} requests{at_once} (setting: rate_limit)"


class Charge:
    """One request, counted.

    Args:
        caller: who sent it, if that is known already.
        address: where it came from.
    """

    __slots__ = ("_client", "_limiter", "_rates", "_verdict")

    def __init__(self, rates: Rates, caller: Hashable | None, address: str) -> None:
        self._rates = rates
        self._limiter = rates.addresses if caller is None else rates.callers
        self._client = address if caller is None else caller
        self._verdict = self._limiter.admit(self._client, monotonic_ns())

    def move(self, caller: Hashable) -> None:
        """It has turned out who sent it: it counts for that one alone. Raises `Refusal`."""
        if self._limiter is self._rates.callers and self._client == caller:
            return
        self._limiter.give_back(self._client)
        self._limiter, self._client = self._rates.callers, caller
        self._verdict = self._limiter.admit(caller, monotonic_ns())
        if (refusal := self.refusal) is not None:
            raise refusal

    @property
    def refusal(self) -> Refusal | None:
        """What is answered if it was one too many."""
        if self._verdict.admitted:
            return None
        wait = str(max(1, _seconds(self._verdict.wait)))
        return Refusal(RATE_LIMITED, self._rates.said, headers={"Retry-After": wait})

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Header fields of the answer, as in draft-ietf-httpapi-ratelimit-headers."""
        burst, window, verdict = self._limiter.burst, self._limiter.window, self._verdict
        return [
            (b"ratelimit-policy", b'"default";q=%d;w=%d' % (burst, _seconds(window))),
            (b"ratelimit", b'"default";r=%d;t=%d' % (verdict.remaining, _seconds(verdict.full))),
        ]


at_hand: ContextVar[Charge | None] = ContextVar("jobs_charge", default=None)
"""That of the request at hand, if requests are counted."""


def _seconds(nanoseconds: int) -> int:
    return -(-nanoseconds // SECOND)
