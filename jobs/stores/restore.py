"""Puts a backup in the place of a database that nobody uses."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from jobs.errors import ConfigurationError, DatabaseUnusable, StoreBusy
from jobs.sealing import key_file

from . import claimant
from .copies import Copied, copy_key, drafted, examined, not_copied, refuse_to_overwrite, sync
from .gate import Gate
from .migrate import check_version
from .place import Place

_SQLITE_LOCKS = (
    0x40000000,
    512,
)  #: where in the file, https://sqlite.org/fileformat2.html#the_lock_byte_page


def restore(
    source: Path,
    database: Path,
    *,
    force: bool = False,
    busy_timeout: float = 5.0,
    allow_network_filesystem: bool = False,
) -> Copied:
    """Put a copy of `source`, a backup, in the place of the database, which nobody may have open.

    `force` replaces a database, which is kept under another name. Jobs that were running when the
    backup was made are those of a dead process, and are put back once a service starts. Raises
    `StoreError`, and `ConfigurationError` for what must not be read or written; the database is then
    as it was."""
    origin, place = Place.at(source), Place.at(database)
    if origin.path == place.path:
        raise ConfigurationError(f"{origin.path} is the database itself: name a backup of it")
    place.check(allow_network_filesystem=allow_network_filesystem)
    version = origin.look() if origin.path.is_file() else 0
    check_version(version, origin.path)
    if origin.log.exists() and origin.log.stat().st_size:
        raise ConfigurationError(
            f"{origin.path} is not a backup but a database with a log ({origin.log.name}): make a backup of it"
            f" with `quart-jobs backup --database {origin.path} FILE`, and restore that"
        )
    if not version:
        raise DatabaseUnusable(f"there is no backup at {origin.path}: name the file to restore")
    refuse_to_overwrite(place.path, force)
    try:
        with closing(Gate(place.gate)) as gate, gate.held(time.monotonic() + busy_timeout):
            return _replace(origin, place)
    except OSError as error:
        raise not_copied(error, origin.path, place.path) from error


def _replace(origin: Place, place: Place) -> Copied:
    """The rest of it, under the gate."""
    with _nobody_else(place), drafted(place.path) as draft:
        shutil.copyfile(origin.path, draft)
        census = examined(draft, origin.path)
        sync(draft)
        owner = (place.path if place.path.exists() else place.path.parent).stat()
        put_aside = _put_aside(place)
        draft.replace(place.path)
        sync(place.path.parent)
    key, ours = key_file(origin.path), key_file(place.path)
    if key.exists() and not ours.exists():
        copy_key(key, ours)
    if os.geteuid() == 0:  # the service may be another user
        for path in (place.path, place.gate, ours):
            if path.exists():
                os.chown(path, owner.st_uid, owner.st_gid)
    same = key.exists() and key.read_bytes() == ours.read_bytes()
    return Copied(
        place.path,
        place.path.stat().st_size,
        census,
        key=ours if same else None,
        key_left=key if key.exists() and not same else None,
        put_aside=put_aside,
    )


@contextmanager
def _nobody_else(place: Place) -> Iterator[None]:
    """Raises `StoreBusy` if a process has the database open; meanwhile none can open it. Under the gate."""
    alive = claimant.living(place.claimants)
    if alive:
        pids = ", ".join(sorted(name.partition("-")[0] for name in alive))
        raise StoreBusy(
            f"the database {place.path} is in use by the process {pids}: stop all that use it"
        )
    if not place.path.exists():
        yield
        return
    with place.path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SQLITE_LOCKS[1], _SQLITE_LOCKS[0])
        except BlockingIOError:
            raise StoreBusy(
                f"the database {place.path} is open in another program: close it there"
            ) from None
        yield


def _put_aside(place: Place) -> Path | None:
    """Give the database and its log another name. What is left in its place, however this ends, is
    either the whole database, or a file that no service takes for one: never without its log, which
    holds the latest commits, and never beside the log of another."""
    log = place.log.exists() and place.log.stat().st_size > 0
    if not place.path.exists() and not log:
        return None
    name = f"{place.path.name}.before-restore-{time.strftime('%Y%m%d-%H%M%S')}"
    while place.path.with_name(name).exists():
        name += "+"
    aside = Place(place.path.with_name(name))
    if place.path.exists():
        aside.path.hardlink_to(place.path)
    if log:
        aside.log.hardlink_to(place.log)
    with drafted(place.path) as marker:
        marker.write_text(
            "quart-jobs was restoring a database here and was interrupted: restore it again."
            f" What was here before is {aside.path.name}.\n"
        )
        sync(marker)
        marker.replace(place.path)
    sync(place.path.parent)
    for path in (place.log, place.log_index):
        path.unlink(missing_ok=True)
    return aside.path
