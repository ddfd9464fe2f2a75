"""What is moved: tables, and portions of their rows that fit into memory."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

Row = tuple[Any, ...]
"""The key first."""

MOST_ROWS, MOST_BYTES = 5_000, 8 << 20  #: of a portion; a single row may be larger


class Table(NamedTuple):
    """A table that both stores have; `kind` is the column by which its rows are counted, if any."""

    name: str
    key: str
    kind: str | None = None


TABLES = (
    Table("jobs", "seq", "state"),
    Table("payloads", "seq"),
    Table("attempts", "id", "outcome"),
    Table("events", "id", "kind"),
)
"""Those with many rows, each with a number for its key."""

API_KEYS = Table("api_keys", "id")
"""Few rows, which are copied all at once."""

EVERY = (*TABLES, API_KEYS)

LEFT_BEHIND = {
    "migrations": "each store has its own",
    "claimants": "the processes that use the server",
    "processes": "what those that use a database say of themselves",
    "move": "the mark in the file",
    "move_notes": "what has changed in the file",
    "moves": "the mark on the server",
}
"""Tables that are not moved, and why. Every other has to be."""


Positions = dict[str, tuple[int, int]]
"""Of each table, the last key that was copied, and the last to be."""


class Standing(NamedTuple):
    """How far a move is at its destination; without positions: nothing was copied."""

    positions: Positions | None
    finished: bool


class Portion(Iterator[Row]):
    """The first rows of many, until they are enough for one transaction."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self._bytes = 0
        self.count = 0
        self.last: Any = None
        """The key of the last row; None if there was none."""
        self.is_all = False
        """Whether there are no more rows than these."""

    def __next__(self) -> Row:
        if self.count >= MOST_ROWS or self._bytes >= MOST_BYTES:
            raise StopIteration
        try:
            row = next(self._rows)
        except StopIteration:
            self.is_all = True
            raise
        self.count += 1
        self.last = row[0]
        self._bytes += sum(len(value) for value in row if isinstance(value, str | bytes))
        return row
