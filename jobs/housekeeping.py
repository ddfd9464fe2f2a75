"""What is done for a store on the side, whoever runs its jobs."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic

from .errors import StoreError
from .model import JobId, now_ms
from .protocols import Store

log = logging.getLogger("jobs.dispatcher")

REAP_EVERY = 1.0  #: seconds between looks for dead claimants and expired jobs
PRUNE_EVERY = 60.0  #: seconds between deletions of jobs past their retention


class Complaint:
    """Says that something is put off: once, however often it fails until it succeeds."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log, self._what = log, what
        self._made = False

    def make(self, error: Exception) -> None:
        """It has failed."""
        level = logging.DEBUG if self._made else logging.WARNING
        self._log.log(level, "%s put off: %s", self._what, error)
        self._made = True

    def drop(self) -> None:
        """It has succeeded."""
        self._made = False


async def keep_house(
    store: Store, *, retention: float, changed: Callable[[Iterable[JobId]], None]
) -> None:
    """Put back what dead processes held, revoke what expired, forget what ended more than `retention` seconds
    ago; until cancelled."""
    prune_at = monotonic() + PRUNE_EVERY
    complaint = Complaint(log, "housekeeping")
    while True:
        try:
            changed(await store.reap())
            if monotonic() >= prune_at:
                while await store.prune(now_ms() - round(1000 * retention)):
                    pass
                prune_at = monotonic() + PRUNE_EVERY
            complaint.drop()
        except StoreError as error:
            complaint.make(error)
        await asyncio.sleep(REAP_EVERY)
