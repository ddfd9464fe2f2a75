"""Jobs in one SQLite file, for one process or several on one machine."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from jobs.errors import StoreError, StoreFull
from jobs.model import JobId
from jobs.peers import Peers

from . import migrate
from .background import end, unheeded
from .ballast import Ballast
from .bell import Bell
from .claimant import Claimant, forget, new_name
from .commits import Commits
from .connection import Connection, close_writer, connect_reader, to_the_end
from .events import SAY
from .faults import translated
from .gate import Gate
from .grouped import GroupedStore, Verbs
from .keys import ADD_KEY, REVOKE_KEY
from .place import Original, Place
from .reads import Reads
from .writer import Writer
from .writes import (
    ADD,
    CANCEL,
    CANCEL_MANY,
    CLAIM,
    CLAIM_THESE,
    ENTER,
    FINISH,
    PROBE,
    PRUNE,
    PUBLISH,
    REAP,
    RELEASE,
    RETRY,
    UNPUBLISH,
)

_LOOK_EVERY = 0.025  #: seconds between looks for the commits of other processes


class SQLiteStore(GroupedStore):
    """A `Store`; see there for what each method promises. To be opened once.

    `busy_timeout`: seconds a write waits for other processes; `ballast_bytes`: disk space kept back for
    a full disk; `queue_limit`: jobs that may wait to be added. Opening creates and migrates the
    database, and raises `DatabaseUnusable`, which leaves the file as it was."""

    _verbs = Verbs(
        add=ADD,
        claim=CLAIM,
        claim_these=CLAIM_THESE,
        publish=PUBLISH,
        unpublish=UNPUBLISH,
        finish=FINISH,
        say=SAY,
        release=RELEASE,
        cancel=CANCEL,
        cancel_many=CANCEL_MANY,
        retry=RETRY,
        prune=PRUNE,
        add_key=ADD_KEY,
        revoke_key=REVOKE_KEY,
        enter=ENTER,
    )

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout: float,
        allow_network_filesystem: bool = False,
        ballast_bytes: int = 0,
        queue_limit: int = 10_000,
    ) -> None:
        self._place = Place.at(path)
        self._busy_timeout, self._queue_limit = busy_timeout, queue_limit
        self._allow_network_filesystem = allow_network_filesystem
        self.claimant = new_name()
        self.location = str(self._place.path)
        """The database file."""
        self._ballast = Ballast(self._place.ballast, ballast_bytes)
        self._original: Original | None = None
        self._bell = Bell()
        self._alive: Claimant | None = None
        self._opened: _Opened | None = None
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        place = self._place
        place.check(allow_network_filesystem=self._allow_network_filesystem)
        migrate.check_version(place.look(), place.path)
        async with AsyncExitStack() as stack:
            gate = Gate(place.gate)
            stack.callback(gate.close)
            stack.callback(self._leave)
            connection = await self._connected(
                stack, lambda: self._connect(gate), partial(self._shut, gate)
            )
            await to_the_end(connection.run(lambda _: self._enter(gate)))
            reader = await self._connected(stack, lambda: self._connect_reader(gate))
            lister = await self._connected(stack, lambda: self._connect_reader(gate))
            assert self._original is not None
            commits = Commits(
                gate,
                place.path,
                claimant=self.claimant,
                ballast=self._ballast,
                original=self._original,
            )
            writer = Writer(
                connection,
                commits,
                place.path,
                busy_timeout=self._busy_timeout,
                queue_limit=self._queue_limit,
                ring=self._bell.ring,
            )
            stack.push_async_callback(writer.close)
            watch = asyncio.create_task(_watch(writer), name="jobs: store watch")
            stack.push_async_callback(end, watch)
            self._opened = _Opened(writer, Reads(reader, lister, place.path))
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened = None
        await to_the_end(self._closing.aclose())

    async def _connected(
        self,
        stack: AsyncExitStack,
        connect: Callable[[], sqlite3.Connection],
        shut: Callable[[sqlite3.Connection], None] = sqlite3.Connection.close,
    ) -> Connection:
        connection = Connection(connect, shut)
        await connection.open()
        stack.push_async_callback(connection.close)
        return connection

    # These run on their connection's thread, each under the gate.

    def _connect(self, gate: Gate) -> sqlite3.Connection:
        if self._original is not None:  # it is opened once more, after a failure
            self._original.check()
        try:
            connection, _ = migrate.connect(self._place, gate, self._busy_timeout)
        except StoreFull:
            with gate.held(time.monotonic() + self._busy_timeout):
                if not self._ballast.spend():
                    raise
            connection, _ = migrate.connect(self._place, gate, self._busy_timeout)
        if self._original is None:
            self._original = Original(self._place.path)
        return connection

    def _shut(self, gate: Gate, connection: sqlite3.Connection) -> None:
        close_writer(connection, gate, time.monotonic() + self._busy_timeout)

    def _connect_reader(self, gate: Gate) -> sqlite3.Connection:
        with gate.held(time.monotonic() + self._busy_timeout):
            return connect_reader(self._place, self._busy_timeout)

    def _enter(self, gate: Gate) -> None:
        with gate.held(time.monotonic() + self._busy_timeout):
            try:
                self._alive = Claimant(self._place.claimants, self.claimant)
                self._ballast.tend()
            except OSError as error:
                raise translated(error, self._place.path) from error

    def _leave(self) -> None:
        if self._alive is not None:
            self._alive.close()
            self._alive = None

    def hold_fileno(self) -> int:
        """A file that says this process is alive as long as any process has it open: for its children."""
        if self._alive is None:
            raise StoreError("the store is not open")
        return self._alive.fileno()

    @property
    def _parts(self) -> "_Opened":
        if self._opened is None:
            raise StoreError("the store is not open")
        return self._opened

    async def reap(self) -> set[JobId]:
        """See `Store.reap`."""
        ended: set[JobId] = set()
        more = True
        while more:
            reaped = await self._parts.writer.submit(REAP, self._place.claimants)
            forget(self._place.claimants, reaped.dead)
            ended |= reaped.ended
            more = reaped.more
        return ended

    async def peers(self) -> Peers:
        """See `Store.peers`. Who has closed the store is not among them; who was killed is, until a reap."""
        found = await super().peers()
        there = [each for each in found.processes if (self._place.claimants / each.name).exists()]
        return found.model_copy(update={"processes": tuple(there)})

    async def check(self) -> None:
        """See `Store.check`. Writes, and so finds out; after the disk has failed, the first check says so
        and only a later one what has become of it."""
        writer = self._parts.writer
        failure = writer.failure
        probing = writer.submit(PROBE, None)
        if failure is not None:
            probing.add_done_callback(unheeded)
            raise StoreError(failure)
        await probing

    async def cancel_requests(self) -> set[JobId]:
        """See `Store.cancel_requests`."""
        return await self._parts.reads.cancel_requests(self.claimant)


class _Opened(NamedTuple):
    writer: Writer
    reads: Reads


async def _watch(writer: Writer) -> None:
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        await writer.look()
