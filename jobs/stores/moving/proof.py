"""Whether two sides have the same rows: counted and hashed, each by what it has itself."""

import hashlib
from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from jobs.errors import StoreError

from .tables import Row


class Count(NamedTuple):
    """Rows of one kind."""

    rows: int
    sha256: str


class _Tally:
    """One side."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._hashes: dict[str, hashlib._Hash] = {}

    def add(self, kind: str, row: bytes) -> None:
        if kind not in self._rows:
            self._rows[kind], self._hashes[kind] = 0, hashlib.sha256()
        self._rows[kind] += 1
        self._hashes[kind].update(row)

    def counts(self) -> dict[str, Count]:
        return {
            kind: Count(self._rows[kind], self._hashes[kind].hexdigest())
            for kind in sorted(self._rows)
        }


class Differs(StoreError):
    """The sides do not have the same rows."""


def proven(
    name: str, ours: Iterable[Row], theirs: Iterable[Row], kind: int | None
) -> dict[str, Count]:
    """The rows of a table by kind, which is in that column, of two sides that have them in the same order.
    Raises `Differs`, naming the first row that is not the same."""
    here, there = _Tally(), _Tally()
    first: Row | None = None
    for our, their in zip_longest(ours, theirs):
        same = our == their
        text = repr(our).encode()
        if our is not None:
            here.add("" if kind is None else our[kind], text)
        if their is not None:
            there.add("" if kind is None else their[kind], text if same else repr(their).encode())
        if not same and first is None:
            first = our or their
    counted, found = here.counts(), there.counts()
    for each in sorted(counted.keys() | found.keys()):
        if counted.get(each) != found.get(each):
            raise Differs(
                f"{' '.join(filter(None, (name, each)))} is not the same on both sides: {_told(counted.get(each))} in"
                f" the file, {_told(found.get(each))} on the server; the first row that differs has the key"
                f" {first[0] if first else '?'}"
            )
    return counted


def _told(count: Count | None) -> str:
    return "none" if count is None else f"{count.rows} rows, sha256 {count.sha256[:16]}…"
