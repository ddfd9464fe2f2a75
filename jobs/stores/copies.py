"""What backup and restore share: whole copies, checked, or none."""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import ConfigurationError, StoreError, StoreFull

from .census import Census, check_integrity, take_census
from .faults import is_full, translated


@dataclass(frozen=True, slots=True)
class Copied:
    """What was written."""

    path: Path
    size: int  #: bytes
    census: Census
    key: Path | None = None  #: the key file that was copied along
    key_left: Path | None = None  #: the key file that was not, and is needed
    put_aside: Path | None = None  #: where the database is that was there before


def refuse_to_overwrite(path: Path, force: bool) -> None:
    """Raises `ConfigurationError` if something is there."""
    if path.exists() and not force:
        raise ConfigurationError(f"{path} exists: name another file, or replace it with --force")


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """An empty file of the owner's alone in the same folder; gone afterwards, unless it was renamed."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{path.parent} cannot be written to: {error.strerror}") from error
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def examined(draft: Path, named: Path) -> Census:
    """What a copy holds. Raises `DatabaseUnusable`, naming that file, if it is damaged."""
    try:
        with closing(sqlite3.connect(f"{draft.as_uri()}?immutable=1", uri=True)) as connection:
            check_integrity(connection, named)
            return take_census(connection)
    except sqlite3.Error as error:
        raise translated(error, named) from error


def not_copied(error: Exception, source: Path, target: Path) -> Exception:
    """The `StoreError` for a copy that failed."""
    if is_full(error):
        return StoreFull(f"the disk is full: {target} could not be written; free some space")
    return translated(error, source)


def sync(path: Path) -> None:
    """Put a file, or what a folder lists, on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_key(key: Path, target: Path) -> None:
    """Copy a key file, whole or not at all."""
    with drafted(target) as draft:
        shutil.copyfile(key, draft)
        sync(draft)
        draft.replace(target)
