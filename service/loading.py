"""From what the command line names to an app with its `Jobs`."""

import importlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from jobs import ConfigurationError, Jobs, JobsError
from jobs.errors import AppNotImportable
from jobs.frameworks import framework_of
from jobs.settings import Settings

IMPORT_STRING = re.compile(r"(?P<module>[\w.]+):(?P<name>[A-Za-z_][\w.]*)(?P<call>\(\))?")


def load(settings: Settings) -> tuple[Any, Jobs]:
    """The app whose jobs are to be run: the one named, or the ready-made one for the task modules named.

    Raises `AppNotImportable`; its cause, if any, is what the user's module raised.
    """
    if settings.app:
        app = find_app(settings.app)
    else:
        from .app import create_app

        for name in settings.tasks:
            import_module(name)
        app = create_app(settings)
    jobs = app.extensions.get("jobs")
    if not isinstance(jobs, Jobs):
        raise AppNotImportable(
            f"the app {settings.app!r} has no Jobs: add `Jobs(app)` (from jobs import Jobs) where it is made"
        )
    return app, jobs


def find_app(string: str) -> Any:
    """The app, Quart's or Flask's, that an import string names."""
    match = IMPORT_STRING.fullmatch(string)
    if match is None:
        raise AppNotImportable(
            f"{string!r} does not name an app: write module:app or module:factory()"
        )
    found: Any = import_module(match["module"])
    for part in match["name"].split("."):
        if not hasattr(found, part):
            raise AppNotImportable(f"the module {match['module']!r} has no {match['name']!r}")
        found = getattr(found, part)
    if match["call"]:
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise AppNotImportable(f"{string} failed: {_told(error)}") from error
    try:
        framework_of(found)
    except ConfigurationError:
        hint = f"; if it makes the app, write {string}()" if callable(found) else ""
        raise AppNotImportable(
            f"{string} is a {type(found).__name__}, not a Quart or Flask app{hint}"
        ) from None
    return found


def import_module(name: str) -> ModuleType:
    """Import a module of the user's."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise AppNotImportable(
                f"there is no module {name!r} in {Path.cwd()} or among the installed packages"
            ) from None
        raise AppNotImportable(f"the module {name!r} failed to import: {_told(error)}") from error
    except (Exception, SystemExit) as error:
        raise AppNotImportable(f"the module {name!r} failed to import: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """The exception in one line, and where in the user's code it was raised."""
    if isinstance(error, JobsError):
        return str(error)
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    if isinstance(error, SyntaxError):
        return f"{said} ({error.filename}, line {error.lineno})"
    ours = (str(Path(__file__).parent), "<frozen", str(Path(importlib.__file__).parent))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(ours) or frame.filename.startswith(sys.path[0])
    ]
    return f"{said} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else said
