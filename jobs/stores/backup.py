"""Copies a database while it is in use."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from jobs.errors import ConfigurationError, DatabaseUnusable
from jobs.sealing import key_file

from .connection import connect_reader
from .copies import Copied, copy_key, drafted, examined, not_copied, refuse_to_overwrite, sync
from .faults import translated
from .gate import Gate
from .migrate import check_version
from .place import Place


def backup(
    database: Path,
    target: Path,
    *,
    force: bool = False,
    with_key: bool = False,
    busy_timeout: float = 5.0,
    allow_network_filesystem: bool = False,
) -> Copied:
    """Copy the database as it is at one moment, while others use it; the copy is one sound file, or is
    not there.

    `force` replaces an earlier copy; `with_key` copies the key file, too. Raises `StoreError`, and
    `ConfigurationError` for a target that must not be written."""
    place, copy = Place.at(database), Place.at(target)
    place.check(allow_network_filesystem=allow_network_filesystem)
    check_version(place.look(), place.path)
    if not place.path.exists() or not place.path.stat().st_size:
        raise DatabaseUnusable(f"there is no database at {place.path}: nothing to back up")
    if copy.path.is_dir() or not copy.path.parent.is_dir():
        raise ConfigurationError(f"{copy.path} cannot be written: name a file in a folder there is")
    if copy.path == place.path or copy.gate.exists() or copy.log.exists():
        raise ConfigurationError(f"{copy.path} is a database in use: name another file")
    refuse_to_overwrite(copy.path, force)
    key, key_copy = key_file(place.path), key_file(copy.path)
    has_key = key.exists()
    if with_key and has_key:
        refuse_to_overwrite(key_copy, force)
    with _reading(place, busy_timeout) as connection, drafted(copy.path) as draft:
        try:
            # From a connection that cannot write, and so never checkpoints (see `gate`).
            connection.execute("VACUUM INTO ?", (str(draft),))
            census = examined(draft, copy.path)
            sync(draft)
            if with_key and has_key:
                copy_key(key, key_copy)
            draft.replace(copy.path)
            sync(copy.path.parent)
        except (sqlite3.Error, OSError) as error:
            raise not_copied(error, place.path, copy.path) from error
    return Copied(
        copy.path,
        copy.path.stat().st_size,
        census,
        key=key_copy if with_key and has_key else None,
        key_left=key if has_key and not with_key else None,
    )


@contextmanager
def _reading(place: Place, busy_timeout: float) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, opened under the gate."""
    with closing(Gate(place.gate)) as gate:
        try:
            with gate.held(time.monotonic() + busy_timeout):
                connection = connect_reader(place, busy_timeout)
        except sqlite3.Error as error:
            raise translated(error, place.path) from error
        try:
            yield connection
        finally:
            connection.close()
