"""The writes to PostgreSQL: a queue of them before the session that commits them."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jobs.model import JobId
from jobs.protocols import Wake
from jobs.stores.group import GroupCommit
from jobs.stores.verbs import Committed, Request

from .commits import Commits
from .server import Server

R = TypeVar("R")

_OVERDUE = 5.0  #: seconds after a write's deadline in which the server may still answer


class Writer(GroupCommit):
    """Group commit on one session, which lives on a thread of its own."""

    def __init__(
        self,
        server: Server,
        commits: Commits,
        *,
        busy_timeout: float,
        queue_limit: int,
        ring: Callable[[Wake], None],
    ) -> None:
        self._server, self._commits = server, commits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs-store")
        super().__init__(busy_timeout=busy_timeout, queue_limit=queue_limit, ring=ring)

    @property
    def held(self) -> Collection[JobId]:
        """The jobs claimed here and neither finished nor released."""
        return self._commits.held

    async def close(self) -> None:
        """Finish what is waiting, and end."""
        await super().close()
        await self._on_thread(self._commits.close)
        self._thread.shutdown(wait=False)

    def _on_thread(self, function: Callable[..., R], *args: Any) -> "asyncio.Future[R]":
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _commit(self, batch: Sequence[Request], deadline: float) -> Committed:
        committing = self._on_thread(self._commits.commit, batch, deadline)
        patience = max(0.0, deadline - time.monotonic()) + _OVERDUE
        done, _ = await asyncio.wait({committing}, timeout=patience)
        if not done:
            self._commits.cut()
        return await committing

    def _translated(self, error: Exception) -> Exception:
        return self._server.translated(error)
