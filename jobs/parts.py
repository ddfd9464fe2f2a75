"""The parts that `Jobs` puts to work: which ones, and how they are set up, by the settings and the app."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from . import memory
from .child import Boot
from .engines.inline import InlineEngine
from .engines.lanes import LaneEngine
from .errors import ConfigurationError
from .functions import importable_name
from .protocols import Broker, Engine, Store
from .registry import Registry
from .runner import Runner
from .sealing import find_keys
from .settings import Settings
from .stores import is_postgres

if TYPE_CHECKING:
    from flask import Flask
    from quart import Quart


def sealing_keys(settings: Settings, app: "Quart | Flask | None", store: Store) -> list[str]:
    """What snapshots are sealed with, the one for new ones first. Raises `ConfigurationError`."""
    app_key = app.secret_key if app is not None else None
    fallbacks = app.config.get("SECRET_KEY_FALLBACKS") if app is not None else None
    beside = None if is_postgres(settings.database) else Path(store.location)
    return find_keys(settings, app_key, fallbacks or (), beside)


def boot_for(
    settings: Settings,
    app: "Quart | Flask | None",
    child: str | None,
    registry: Registry,
    keys: list[str],
    store: Store,
) -> Boot:
    """What a child process is told; `child` is how it finds the app, if the user says so. Raises
    `ConfigurationError` if nobody can say how."""
    return Boot(
        app=None if app is None else child or settings.app or import_string(app),
        modules=tuple(sorted({task.module for task in registry.values()})),
        keys=tuple(keys),
        max_result_bytes=settings.max_result_bytes,
        max_args_bytes=settings.max_args_bytes,
        nice=settings.nice,
        recycle_after_jobs=settings.recycle_after_jobs,
        recycle_after_bytes=_most_growth(settings),
        hold=store.hold_fileno(),
    )


def engine_for(
    settings: Settings, *, boot: Callable[[], Boot], runner: Callable[[], Runner]
) -> Engine:
    """What runs jobs in this process, or in children of it: those are told what `boot` makes, and jobs
    here go through what `runner` makes."""
    if settings.engine == "inline":
        return InlineEngine(runner(), slots=settings.lane_count, grace=settings.grace)
    return LaneEngine(
        settings.lane_count,
        boot(),
        stop_grace=settings.stop_grace,
        grace=settings.grace,
        max_log_bytes=settings.max_log_bytes if settings.capture_output else None,
    )


def broker_for(settings: Settings) -> Broker:
    """Where jobs are announced to Celery's workers. Raises `ConfigurationError`."""
    if settings.broker is None:
        raise ConfigurationError(
            "setting 'engine' (JOBS_ENGINE) is celery, which needs a broker: say where it is with --broker or"
            " JOBS_BROKER, such as redis://host:6379/0"
        )
    try:
        from .celery.broker import CeleryBroker
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"setting 'engine' (JOBS_ENGINE) is celery, which is not installed ({error}):"
            " pip install 'quart-jobs[celery]'"
        ) from error
    return CeleryBroker(settings.broker)


def _most_growth(settings: Settings) -> int:
    """Bytes by which a child may grow."""
    if settings.recycle_after_mb is not None:
        return settings.recycle_after_mb * memory.MIB
    return memory.of_machine() // (2 * settings.lane_count * settings.workers)


def import_string(app: "Quart | Flask") -> str:
    """How a child finds the app: the attribute of its module that *is* the app."""
    module = sys.modules.get(app.import_name)
    names = [name for name, value in vars(module).items() if value is app] if module else []
    if not names:
        raise ConfigurationError(
            f"no attribute of the module {app.import_name!r} is the app, so child processes cannot import it:"
            ' say how with Jobs(app, child="package:app") or child="package:create_app()"'
        )
    return f"{importable_name(app.import_name)}:{names[0]}"
