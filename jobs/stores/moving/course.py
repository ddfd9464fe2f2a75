"""The course of a move, from whatever point it was left at."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Protocol

from jobs.errors import ConfigurationError, JobsError, StoreBusy, StoreError
from jobs.stores.moved import Mark, Stage

from .proof import Count, Differs, proven
from .source import Source
from .tables import EVERY, TABLES, Portion, Positions, Row, Standing, Table

FEW_NOTES = 1_000  #: that are copied in well under a second
_NOTES = 5_000  #: copied in one transaction
_ROUNDS = 50  #: of copying what changed meanwhile, before no job begins any more
_LOOK_EVERY = 0.1  #: seconds, between looks whether jobs still run
_TELL_EVERY = 1.0  #: seconds


class Destination(Protocol):
    """See `jobs.stores.postgres.destination`."""

    location: str

    def find(self, token: str) -> Standing | None: ...
    def begin(self, token: str, source: str) -> None: ...
    def enter(self, token: str) -> None: ...
    def finish(self, token: str) -> None: ...
    def clear(self, token: str) -> None: ...
    def append(self, token: str, table: Table, rows: Portion, positions: Positions) -> None: ...
    def set_positions(self, token: str, positions: Positions) -> None: ...
    def replace(
        self, changed: Mapping[str, set[int]], rows: Mapping[str, Iterable[Row]]
    ) -> None: ...
    def replace_api_keys(self, rows: Iterable[Row]) -> None: ...
    def set_given(self, table: Table, given: int) -> None: ...
    def every_row(self, table: Table) -> Generator[Row, None, None]: ...
    def analyze(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved: rows by table and kind; and for how many seconds no job was taken."""

    counts: Mapping[str, Mapping[str, Count]]
    closed: float


Tell = Callable[[str], None]


def move(source: Source, there: Destination, *, wait: float, tell: Tell) -> Moved | None:
    """Move everything; None if that had been done before. `wait`: seconds that running jobs have to end.

    Raises `ConfigurationError` for a destination that it cannot be, `StoreBusy` if jobs do not end in time,
    `StoreError`; and `Differs` if the copy is not the same, which then is deleted."""
    mark = _begun(source, there)
    standing = there.find(mark.token)
    assert standing is not None
    if standing.finished:
        if mark.stage is not Stage.MOVED:
            source.leave(there.location)
        return None
    positions = standing.positions
    if positions is None:
        positions = {table.name: (0, source.top(table)) for table in TABLES}
        there.set_positions(mark.token, positions)
    for table in TABLES:
        _copy(source, there, mark.token, table, positions, tell)
    if mark.stage is not Stage.CLOSED:
        _follow(source, there, tell)
        _close(source, there, wait, tell)
    closed_at = time.monotonic()
    tell("the file takes no more jobs")
    while _catch_up(source, there):
        pass
    there.replace_api_keys(source.api_keys())
    for table in TABLES:
        there.set_given(table, source.given(table))
    tell("comparing all rows")
    try:
        counts = {table.name: _proven(source, there, table) for table in EVERY}
    except Differs:
        there.clear(mark.token)
        source.undo()
        raise
    there.finish(mark.token)
    source.leave(there.location)
    return Moved(counts, time.monotonic() - closed_at)


def abort(source: Source, there: Destination) -> None:
    """Undo a move that is not over: services go on with the file as if nothing had been. Raises
    `ConfigurationError` if there is none, or it is over."""
    mark = source.mark()
    if mark is None:
        raise ConfigurationError(f"no move from {source.path} was begun: nothing to undo")
    standing = there.find(mark.token)
    if mark.stage is Stage.MOVED or (standing is not None and standing.finished):
        raise ConfigurationError(
            f"the jobs of {source.path} have moved to {mark.target}, and may have run there: that cannot be undone"
        )
    if standing is not None:
        there.clear(mark.token)
    elif mark.target != there.location:
        raise _begun_elsewhere(source, mark)
    source.undo()


def _begun(source: Source, there: Destination) -> Mark:
    """Both sides know of the move, whichever knew of it before."""
    mark = source.mark()
    if mark is not None:
        if there.find(mark.token) is None:
            if mark.target != there.location or mark.stage is Stage.MOVED:
                raise _begun_elsewhere(source, mark)
            there.begin(mark.token, str(source.path))
        there.enter(mark.token)
        return mark
    mark = source.begin(there.location)
    try:
        there.begin(mark.token, str(source.path))
    except JobsError:
        with suppress(StoreError):
            source.undo()
        raise
    return mark


def _begun_elsewhere(source: Source, mark: Mark) -> ConfigurationError:
    if mark.stage is Stage.MOVED:
        return ConfigurationError(f"the jobs of {source.path} have moved to {mark.target} already")
    return ConfigurationError(
        f"a move from {source.path} to {mark.target} was begun: give its address, to finish it or, with --abort, to"
        " undo it"
    )


def _copy(
    source: Source, there: Destination, token: str, table: Table, positions: Positions, tell: Tell
) -> None:
    """What was there when the move began, while services go on."""
    told = time.monotonic()
    while positions[table.name][0] < positions[table.name][1]:
        with closing(source.rows(table, *positions[table.name])) as rows:
            there.append(token, table, Portion(rows), positions)
        if time.monotonic() - told > _TELL_EVERY:
            told = time.monotonic()
            after, top = positions[table.name]
            tell(f"{table.name}: {100 * after // top} %")
    tell(f"{table.name}: copied")


def _follow(source: Source, there: Destination, tell: Tell) -> None:
    """What has changed since, until that is little."""
    there.analyze()
    for _ in range(_ROUNDS):
        if _catch_up(source, there) < FEW_NOTES:
            return
    tell("services change rows as fast as they are copied")


def _catch_up(source: Source, there: Destination) -> int:
    """Copy what the oldest notes tell of; how many they are."""
    notes = source.notes(_NOTES)
    if notes.many:
        rows = {table.name: source.these(table, notes.keys[table.name]) for table in TABLES}
        there.replace(notes.keys, rows)
        source.forget_notes(notes.last)
    return notes.many


def _close(source: Source, there: Destination, wait: float, tell: Tell) -> None:
    """Let no job begin, and as soon as none runs, let nothing be written."""
    source.hold(there.location)
    tell("no more jobs begin; those that run may end")
    try:
        deadline = time.monotonic() + wait
        while True:
            source.reap()
            few = _catch_up(source, there) < FEW_NOTES
            late = time.monotonic() >= deadline
            running = source.running()
            if not running and (few or late) and source.close(there.location):
                return
            if running and late:
                raise StoreBusy(_still_running(running, wait))
            if few:
                time.sleep(_LOOK_EVERY)
    except BaseException:
        source.let_go()
        raise


def _still_running(running: Sequence[tuple[str, str]], wait: float) -> str:
    shown = ", ".join(f"{job_id} ({task})" for job_id, task in running[:3])
    more = f" and {len(running) - 3} more" if len(running) > 3 else ""
    return (
        f"after {wait:g} s these jobs still run: {shown}{more}. Nothing has moved, and jobs begin again. What is copied"
        " stays copied: move again when they have ended, with a longer --wait, or cancel them; or stop the services,"
        " which puts them back"
    )


def _proven(source: Source, there: Destination, table: Table) -> dict[str, Count]:
    kind = None if table.kind is None else source.columns(table).index(table.kind)
    with closing(source.every_row(table)) as ours, closing(there.every_row(table)) as theirs:
        return proven(table.name, ours, theirs, kind)
