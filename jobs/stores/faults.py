"""What SQLite's errors mean to a caller."""

import errno
import sqlite3
from pathlib import Path

from jobs.errors import DatabaseMoved, DatabaseUnusable, StoreBusy, StoreError, StoreFull


def primary_code(error: BaseException) -> int:
    """SQLite's result code without its extension; 0 for any other error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_full(error: BaseException) -> bool:
    """Whether there was no space left."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # The index of the log is the one file whose growth SQLite reports as an I/O error.
    code = getattr(error, "sqlite_errorcode", 0)
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


def is_disk_failure(error: BaseException) -> bool:
    """Whether the disk failed: what the connection believes to be written may not be."""
    return primary_code(error) == sqlite3.SQLITE_IOERR and not is_full(error)


def is_damage(error: BaseException) -> bool:
    """Whether the file's content makes no sense."""
    return primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def translated(error: Exception, path: Path) -> Exception:
    """The `StoreError` that says the same; an error that is neither SQLite's nor the system's stays itself."""
    if is_full(error):
        return full(path)
    if isinstance(error, OSError):
        return StoreError(f"the database {path} failed: {error}")
    if not isinstance(error, sqlite3.Error):
        return error
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        return DatabaseMoved(str(error))  # triggers are there for nothing else
    code = primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"the database {path} is locked by another program")
    if code == sqlite3.SQLITE_NOTADB:
        return DatabaseUnusable(
            f"{path} is not a SQLite database: name another file, or move this one away"
        )
    if code == sqlite3.SQLITE_CORRUPT:
        return damaged(path, str(error))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return DatabaseUnusable(
            f"the database {path} cannot be opened for writing ({error}):"
            " make the file and its folder writable for this user"
        )
    return StoreError(f"the database {path} failed: {error}")


def full(path: Path) -> StoreFull:
    """No disk space."""
    return StoreFull(f"the disk is full, so nothing can be written to the database {path}")


def short(path: Path) -> StoreFull:
    """What space there is serves something else."""
    return StoreFull(
        f"the disk of the database {path} is full, and what is left of it serves the jobs that run now:"
        " free some space"
    )


def damaged(path: Path, how: str) -> DatabaseUnusable:
    """The file's content contradicts itself."""
    return DatabaseUnusable(
        f"the database {path} is damaged ({how}): restore a backup, or rescue what can be read"
        f" with `sqlite3 {path} .recover`"
    )
