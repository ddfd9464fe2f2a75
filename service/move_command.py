"""What `quart-jobs move` does."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import ConfigurationError
from jobs.sealing import key_file
from jobs.settings import Settings
from jobs.stores import is_postgres, sqlite_path, without_driver, without_password
from jobs.stores.moving import course, source
from jobs.stores.moving.course import Destination, Moved
from jobs.stores.moving.source import Source

Say = Callable[[str], None]


def move(settings: Settings, file: str, address: str, *, wait: float, say: Say) -> None:
    """Move all jobs and keys, telling how it goes. Raises as `course.move` does."""
    began = time.monotonic()
    with _both(settings, file, address) as (ours, theirs):
        moved = course.move(ours, theirs, wait=wait, tell=say)
        if moved is None:
            say(
                f"the jobs of {ours.path} had been moved to {theirs.location} before: nothing to do"
            )
            return
        for line in _table(moved):
            say(line)
        say(
            f"moved to {theirs.location} in {time.monotonic() - began:.1f} s, of which {moved.closed:.1f} s no job was"
            " taken: all rows are the same on both sides"
        )
        say(
            "start services with JOBS_DATABASE set to the new address; the file stays, and refuses them"
        )
        _tell_of_the_key(settings, ours, say)


def abort(settings: Settings, file: str, address: str, *, say: Say) -> None:
    """Undo a move that is not over. Raises as `course.abort` does."""
    with _both(settings, file, address) as (ours, theirs):
        course.abort(ours, theirs)
        say(
            f"the move is undone: services go on with {ours.path}; nothing is left in {theirs.location}"
        )


@contextmanager
def _both(settings: Settings, file: str, address: str) -> Iterator[tuple[Source, Destination]]:
    path = _checked(file, address)
    try:
        from jobs.stores.postgres import destination
    except ImportError as error:
        raise without_driver(error) from error
    network = settings.allow_network_filesystem
    patience = settings.busy_timeout
    with (
        source.opened(path, busy_timeout=patience, allow_network_filesystem=network) as ours,
        destination.opened(address, ours.columns, busy_timeout=patience) as theirs,
    ):
        yield ours, theirs


def _checked(file: str, address: str) -> Path:
    """The file. Raises `ConfigurationError` unless the jobs go from a file to a server."""
    if is_postgres(file):
        raise ConfigurationError(
            f"{without_password(file)} is PostgreSQL: jobs move from a SQLite file to PostgreSQL, and not back; between"
            " servers, use pg_dump --schema=quart_jobs with all services stopped"
        )
    path = sqlite_path(file)
    if not is_postgres(address):
        raise ConfigurationError(
            f"{without_password(address)} is no PostgreSQL address (postgresql://user@host/name): to copy a file, use"
            " quart-jobs backup"
        )
    return path


def _table(moved: Moved) -> Iterator[str]:
    for name, counts in moved.counts.items():
        for kind, count in counts.items():
            yield f"  {name:9} {kind:12} {count.rows:>11,}  sha256 {count.sha256}"


def _tell_of_the_key(settings: Settings, ours: Source, say: Say) -> None:
    key, sealed = key_file(ours.path), ours.sealed()
    if key.exists() and not settings.secret_key:
        say(
            f"requests are sealed with the key in {key}: give every service its content as JOBS_SECRET_KEY"
            + (f", for {sealed} unfinished jobs need it" if sealed else "")
        )
    elif sealed:
        say(
            f"{sealed} unfinished jobs are sealed: services need the JOBS_SECRET_KEY, or the app's key, as before"
        )
