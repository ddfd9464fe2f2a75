"""The writes to a SQLite file: a queue of them before the connection that commits them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.protocols import Wake

from .commits import Commits
from .connection import Connection
from .faults import translated
from .group import GroupCommit
from .verbs import Committed, Request


class Writer(GroupCommit):
    """Group commit on one connection to the file at `path`."""

    def __init__(
        self,
        connection: Connection,
        commits: Commits,
        path: Path,
        *,
        busy_timeout: float,
        queue_limit: int,
        ring: Callable[[Wake], None],
    ) -> None:
        self._connection, self._commits, self._path = connection, commits, path
        super().__init__(busy_timeout=busy_timeout, queue_limit=queue_limit, ring=ring)

    @property
    def failure(self) -> str | None:
        """What the disk did last, until a write succeeds."""
        return self._commits.failure

    async def look(self) -> None:
        """Ring for what other processes have committed, and keep house."""
        if not self._writing and await self._connection.run(self._commits.look):
            self._ring(~Wake(0))

    async def _commit(self, batch: Sequence[Request], deadline: float) -> Committed:
        if self.failure is not None:
            await self._connection.reopen()
        return await self._connection.run(self._commits.commit, batch, deadline)

    def _translated(self, error: Exception) -> Exception:
        return translated(error, self._path)
