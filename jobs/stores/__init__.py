"""Where jobs are kept."""

import re
from pathlib import Path

from jobs.errors import ConfigurationError
from jobs.protocols import Store
from jobs.settings import Settings


def open_store(settings: Settings) -> Store:
    """The store that the settings name, to be opened with `async with`.

    Raises `ConfigurationError` if they name none that there is."""
    if is_postgres(settings.database):
        return _postgres(settings)
    from .sqlite import SQLiteStore

    return SQLiteStore(
        sqlite_path(settings.database),
        busy_timeout=settings.busy_timeout,
        ballast_bytes=settings.ballast_bytes,
        allow_network_filesystem=settings.allow_network_filesystem,
    )


def _postgres(settings: Settings) -> Store:
    try:
        from .postgres import PostgresStore
    except ImportError as error:
        raise without_driver(error) from error
    return PostgresStore(settings.database, busy_timeout=settings.busy_timeout)


def without_driver(error: ImportError) -> ConfigurationError:
    """PostgreSQL is asked for, and its driver cannot be imported."""
    return ConfigurationError(
        "setting 'database' (JOBS_DATABASE) names PostgreSQL, which needs a driver:"
        f" pip install 'quart-jobs[postgres]' ({error})"
    )


def migrate_database(settings: Settings) -> tuple[str, list[int]]:
    """Bring the database that the settings name up to date, creating a file if need be: where it is, and the
    numbers of the migrations applied. Raises `StoreError`, `ConfigurationError`."""
    if is_postgres(settings.database):
        try:
            from .postgres.migrate import migrate as migrate_postgres
            from .postgres.server import Server
        except ImportError as error:
            raise without_driver(error) from error
        server = Server(settings.database, busy_timeout=settings.busy_timeout)
        return server.location, migrate_postgres(server)
    from .migrate import migrate as migrate_sqlite

    path = sqlite_path(settings.database)
    applied = migrate_sqlite(
        path,
        busy_timeout=settings.busy_timeout,
        allow_network_filesystem=settings.allow_network_filesystem,
    )
    return str(path), applied


def is_postgres(database: str) -> bool:
    """Whether `database` is the address of a PostgreSQL database."""
    return database.startswith(("postgresql://", "postgres://"))


def without_password(database: str) -> str:
    """The same, to be shown."""
    return re.sub(r"(?<=://)[^/?#]*@|(?<=password=)[^&\s]*", "…", database)


def sqlite_path(database: str) -> Path:
    """The file that `database` names: a path, `sqlite:///relative/path` or `sqlite:////absolute/path`.

    Raises `ConfigurationError` if it names none."""
    scheme, colon, rest = database.partition("://")
    path = database
    if colon:
        if scheme != "sqlite" or not rest.startswith("/"):
            raise ConfigurationError(
                f"setting 'database' (JOBS_DATABASE): {without_password(database)!r} is not a SQLite file: give its"
                " path, or sqlite:///path; or postgresql://user@host/name for PostgreSQL"
            )
        path = rest[1:]
    if not path or ":memory:" in path:
        raise ConfigurationError(
            "setting 'database' (JOBS_DATABASE): jobs are kept in a file, which all processes open: give its path"
        )
    return Path(path)
