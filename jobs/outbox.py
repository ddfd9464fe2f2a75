"""From the store to a broker: what is ready to run is announced to workers elsewhere.

The row is the truth, and the message a hint that its next attempt may be claimed. A job is hidden from
others in the store first and announced after that commit; what no worker has claimed in time, or the broker
seems to have lost, is announced again, and of two announcements of one attempt the second finds it taken.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .errors import BrokerUnreachable, StoreError
from .housekeeping import REAP_EVERY, Complaint, keep_house
from .model import Job, JobId, now_ms
from .protocols import Broker, Store, Wake
from .roster import Roster

log = logging.getLogger("jobs.outbox")

BATCH = 200  #: jobs that are announced at one go
HIDDEN = 3600.0  #: seconds after which a job that nobody has claimed is announced again, whatever the broker says
LOST_AFTER = 5.0  #: ... and after which it is, if the broker has fewer announcements than there are such jobs
COMPARE_EVERY = 2.0  #: seconds between such comparisons
PAUSE = 1.0  #: seconds before a broker that could not be reached is tried again
PATIENCE = 10.0  #: seconds until a broker that says nothing is in trouble


class Outbox:
    """Announces the store's jobs until it is stopped.

    `retention`: seconds that an ended job is kept; `changed` is told which jobs others may have changed."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        roster: Roster,
        *,
        retention: float,
        changed: Callable[[Iterable[JobId]], None],
    ) -> None:
        self._store, self._broker, self._roster = store, broker, roster
        self._retention, self._changed = retention, changed
        self._bell = asyncio.Event()
        self._bell.set()
        self._unsent: Sequence[Job] = ()
        self._stopping = False
        self._due: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs-broker")
        self.trouble: str | None = None
        """Why nothing can be announced now, in words."""

    def wake(self, wake: Wake) -> None:
        """Something may have changed in the store."""
        if Wake.WORK in wake:
            self._bell.set()

    def stop(self) -> None:
        """Announce no more than is under way."""
        self._stopping = True
        self._bell.set()

    async def run(self) -> None:
        """Until `stop`."""
        try:
            async with asyncio.TaskGroup() as group:
                beside = (
                    group.create_task(
                        keep_house(self._store, retention=self._retention, changed=self._changed)
                    ),
                    group.create_task(self._compare()),
                )
                await self._announce()
                for task in beside:
                    task.cancel()
        finally:
            if self._due is not None:
                self._due.cancel()
            self._thread.submit(self._broker.close)
            self._thread.shutdown(wait=False)

    async def _announce(self) -> None:
        complaint = Complaint(log, "announcing jobs")
        while not self._stopping:
            await self._bell.wait()
            self._bell.clear()
            try:
                await self._publish()
                complaint.drop()
            except BrokerUnreachable:
                self._ring_in(PAUSE)
            except StoreError as error:
                complaint.make(error)
                self._ring_in(PAUSE)

    async def _publish(self) -> None:
        while not (self._stopping or self._roster.trouble):
            if not self._unsent:
                hidden = await self._store.publish(BATCH, now_ms() + round(1000 * HIDDEN))
                self._unsent = hidden.jobs
                if not self._unsent:
                    if hidden.next_due is not None:
                        # The wall clock may step: look again within a second whatever it says.
                        self._ring_in(min(max(hidden.next_due - now_ms(), 0) / 1000, REAP_EVERY))
                    return
            await self._call(self._broker.publish, self._unsent)
            self._unsent = ()

    def _ring_in(self, seconds: float) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = asyncio.get_running_loop().call_later(seconds, self._bell.set)

    async def _compare(self) -> None:
        """Find out what the broker has lost; also, whether it can be reached."""
        complaint = Complaint(log, "comparing with the broker")
        while True:
            try:
                published = await self._store.published()
                depths = await self._call(self._broker.depths, published.keys())
                for queue, count in published.items():
                    if count > depths.get(queue, 0):
                        # Some may be on their way; which ones are lost, nobody knows.
                        before = now_ms() + round(1000 * (HIDDEN - LOST_AFTER))
                        await self._store.unpublish(queue, before)
                complaint.drop()
            except BrokerUnreachable:
                pass
            except StoreError as error:
                complaint.make(error)
            await asyncio.sleep(COMPARE_EVERY)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call the broker in its thread, and note whether that went well."""
        calling = asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        done, _ = await asyncio.wait({calling}, timeout=PATIENCE)
        if not done:
            self._note(f"no answer within {PATIENCE:g} s")
        try:
            answer = await calling
        except BrokerUnreachable as error:
            self._note(str(error))
            raise
        self._note(None)
        return answer

    def _note(self, trouble: str | None) -> None:
        before, self.trouble = self.trouble, None
        if trouble is not None:
            self.trouble = (
                f"the broker {self._broker.name} cannot be reached ({trouble}): jobs are kept, and begin when it"
                " is back"
            )
        if trouble is not None and before is None:
            log.error("%s", self.trouble)
        elif trouble is None and before is not None:
            log.warning("the broker %s is back", self._broker.name)
