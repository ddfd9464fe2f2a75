"""Where jobs are kept."""

from pathlib import Path

from jobs.errors import ConfigurationError
from jobs.protocols import Store
from jobs.settings import Settings


def open_store(settings: Settings) -> Store:
    """The store that the settings name, to be opened with `async with`.

    Raises `ConfigurationError` if they name none that there is."""
    from .sqlite import SQLiteStore

    return SQLiteStore(
        sqlite_path(settings.database),
        busy_timeout=settings.busy_timeout,
        ballast_bytes=settings.ballast_bytes,
        allow_network_filesystem=settings.allow_network_filesystem,
    )


def sqlite_path(database: str) -> Path:
    """The file that `database` names: a path, `sqlite:///relative/path` or `sqlite:////absolute/path`."""
    scheme, colon, rest = database.partition("://")
    path = database
    if colon:
        if scheme != "sqlite" or not rest.startswith("/"):
            raise ConfigurationError(
                f"setting 'database' (JOBS_DATABASE): {database!r} is not a SQLite file:"
                " give its path, or sqlite:///path"
            )
        path = rest[1:]
    if not path or ":memory:" in path:
        raise ConfigurationError(
            "setting 'database' (JOBS_DATABASE): jobs are kept in a file, which all processes open: give its path"
        )
    return Path(path)
