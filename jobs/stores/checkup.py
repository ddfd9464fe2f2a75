"""What is right and wrong with a database and where it is, in words. Writes nothing, and makes no file."""

import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from jobs.errors import StoreBusy, StoreError
from jobs.model import now_ms
from jobs.sealing import key_file
from jobs.settings import Settings

from . import claimant, sqlite_path
from .ballast import room
from .census import Census, check_integrity, take_census
from .faults import translated
from .findings import Finding, ok, problem, warning
from .gate import Gate
from .migrate import check_version, migrations
from .moved import Stage, mark, refusal
from .place import Place, filesystem

_FIXED = (3, 51, 3)  #: https://sqlite.org/wal.html#walresetbug
_LARGE_LOG = 64 << 20
_LONG = 60_000  #: ms; what lies further in the future than that was written by another clock


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings about the database that the settings name; services may use it meanwhile."""
    yield _sqlite()
    place = Place.at(sqlite_path(settings.database))
    try:
        place.check(allow_network_filesystem=settings.allow_network_filesystem)
        check_version(place.look(), place.path)
    except StoreError as error:
        yield problem("database", str(error))
        return
    yield _filesystem(place)
    yield _disk(place, settings)
    if not place.path.exists():
        yield ok("database", f"{place.path} does not exist yet: a service makes it when it starts")
        return
    yield from _permissions(place)
    alive: set[str] | None = None
    try:
        alive = _living(place, settings.busy_timeout)
    except StoreBusy:
        yield problem(
            "write lock",
            f"a process has held {place.gate} for {settings.busy_timeout:g} s, so nothing can be written",
            "find it, stopped or hanging, in /proc/locks by the inode of that file, and end it",
        )
    try:
        with _reading(place) as connection:
            if connection is None:
                yield warning(
                    "database",
                    f"its log, {place.log}, has to be recovered before it can be examined",
                    "start a service, which recovers it, and examine it again",
                )
                return
            check_integrity(connection, place.path)
            yield ok("database", f"{place.path}: sound, {place.path.stat().st_size >> 10} KiB")
            yield _schema(connection)
            yield from _move(connection, place)
            yield _log(place)
            census = take_census(connection)
            yield from _jobs(connection, census, alive)
            yield _clock(connection)
            yield _key(place, settings, census)
    except sqlite3.Error as error:
        yield problem("database", str(translated(error, place.path)))
    except StoreError as error:
        yield problem("database", str(error))


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= _FIXED:
        return ok("SQLite", version)
    return warning(
        "SQLite",
        f"{version} can lose commits when several connections write (fixed in 3.51.3); services avoid it",
        "let no other program write to the database",
    )


def _filesystem(place: Place) -> Finding:
    kind = filesystem(place.path.parent)
    return ok("file system", f"{place.path.parent}: {kind or 'of a kind that cannot be told'}")


def _disk(place: Place, settings: Settings) -> Finding:
    free, size = room(place.path.parent), settings.ballast_bytes
    said = f"{free >> 20} MiB free"
    if not place.path.exists() or not size:
        return ok("disk", said)
    kept = place.ballast.stat().st_size if place.ballast.exists() else 0
    if kept < size and free < 2 * size:
        return problem(
            "disk",
            f"full ({said}): the ballast was given up, and no job is taken",
            f"make {2 * size >> 20} MiB free; services go on by themselves",
        )
    if kept < size:
        return ok("disk", f"{said}; a service makes the ballast while it runs")
    if free < 2 * size:
        return warning("disk", f"nearly full: {said}", "make room before jobs are refused")
    return ok("disk", f"{said}, and {kept >> 20} MiB of ballast")


def _permissions(place: Place) -> Iterator[Finding]:
    key = key_file(place.path)
    files = [place.path, place.gate, place.log, place.log_index, place.ballast, key]
    there = {path: path.stat() for path in files if path.exists()}
    open_ = [path for path, found in there.items() if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    names = " ".join(map(str, open_))
    owners = {found.st_uid for found in there.values()}
    if key in open_:
        yield problem(
            "permissions", f"others can read {key}: no service starts", f"chmod 600 {key}"
        )
    elif open_:
        yield warning("permissions", f"others can read {names}", f"chmod 600 {names}")
    elif len(owners) > 1:
        yield warning(
            "permissions",
            f"the database and the files beside it belong to {len(owners)} users",
            "chown them all to the user that the services run as",
        )
    else:
        yield ok("permissions", "only the owner reads the database and the files beside it")


def _living(place: Place, patience: float) -> set[str]:
    """The claimants that live. Raises `StoreBusy`."""
    if not place.gate.exists():
        return set()
    with closing(Gate(place.gate)) as gate, gate.held(time.monotonic() + patience):
        return claimant.living(place.claimants)


@contextmanager
def _reading(place: Place) -> Iterator[sqlite3.Connection | None]:
    """A connection that makes no file and recovers nothing; None where there can be none."""
    log = place.log.exists() and place.log.stat().st_size > 0
    if place.log.exists() and place.log_index.exists():
        how = "mode=ro&readonly_shm=1"
    elif not log:
        how = "immutable=1"  # nobody uses it
    else:
        yield None
        return
    with closing(sqlite3.connect(f"{place.path.as_uri()}?{how}", uri=True, timeout=1)) as found:
        yield found


def _schema(connection: sqlite3.Connection) -> Finding:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    known = len(migrations())
    if version < known:
        return warning(
            "schema",
            f"version {version}; this release has {known}",
            "make a backup: the next service that starts migrates it, and earlier releases refuse it then",
        )
    return ok("schema", f"version {version}")


def _move(connection: sqlite3.Connection, place: Place) -> Iterator[Finding]:
    found = mark(connection)
    if found is None:
        return
    if found.stage is Stage.COPYING:
        said = f"a move to {found.target} was begun: services note every change for it"
        yield warning("move", said, "finish it with `quart-jobs move`, or undo it with --abort")
    elif found.stage is Stage.HELD:
        said = refusal(place.path, found.target, found.stage)
        yield problem("move", said, "finish it with `quart-jobs move`, or undo it with --abort")
    else:
        yield problem("move", refusal(place.path, found.target, found.stage))


def _log(place: Place) -> Finding:
    size = place.log.stat().st_size if place.log.exists() else 0
    if size > _LARGE_LOG:
        return warning(
            "log",
            f"{size >> 20} MiB: something reads the database without end, and so keeps it from shrinking",
            "close other programs that have the database open, or wait for the backup under way",
        )
    return ok("log", f"{size >> 10} KiB")


def _jobs(
    connection: sqlite3.Connection, census: Census, alive: set[str] | None
) -> Iterator[Finding]:
    (oldest,) = connection.execute(
        "SELECT min(created_at) FROM jobs WHERE state = 'PENDING' AND ready = 1"
    ).fetchone()
    said = str(census)
    if oldest is not None:
        said += f"; the oldest that waits was submitted {max(0, now_ms() - oldest) // 1000} s ago"
    if oldest is not None and alive == set():
        yield warning(
            "jobs", f"{said}; no process is there to run them", "start a service or a worker"
        )
    else:
        yield ok("jobs", said)
    if alive is None:
        return
    holders = connection.execute(
        "SELECT claimed_by, count(*) FROM jobs WHERE state = 'STARTED' GROUP BY 1"
    ).fetchall()
    lost = sum(count for name, count in holders if name not in alive)
    pids = ", ".join(sorted(name.partition("-")[0] for name in alive))
    processes = f"{len(alive)} use the database" + (f": {pids}" if pids else "")
    if lost:
        yield warning(
            "processes",
            f"{processes}; {lost} jobs are marked as running in processes that have died",
            "nothing, if a service runs: within seconds they run again; else start one",
        )
    else:
        yield ok("processes", processes)


def _clock(connection: sqlite3.Connection) -> Finding:
    (latest,) = connection.execute(
        "SELECT max(max(created_at), coalesce(max(finished_at), 0)) FROM jobs"
    ).fetchone()
    ahead = (latest or 0) - now_ms()
    if ahead > _LONG:
        return warning(
            "clock",
            f"the database has times that are {ahead // 1000} s in the future: the clock was set back",
            "set the clock by NTP; jobs that were put off begin by that clock",
        )
    return ok("clock", time.strftime("%Y-%m-%d %H:%M:%S %z"))


def _key(place: Place, settings: Settings, census: Census) -> Finding:
    path = key_file(place.path)
    if settings.secret_key is not None:
        return ok("key", "JOBS_SECRET_KEY")
    if path.exists():
        return ok("key", str(path))
    if census.sealed:
        return warning(
            "key",
            f"{census.sealed} jobs carry a sealed request snapshot, and neither JOBS_SECRET_KEY nor {path} is there",
            "nothing, if the app has a secret_key and that seals them; else restore the key file",
        )
    return ok("key", "none yet: the app's secret_key, or a key file that a service makes")
