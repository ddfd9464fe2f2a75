"""A real Valkey from its wheel, on a socket in a folder of its own, and a Celery worker on it."""

import sys
from itertools import count
from pathlib import Path

import redis

from service.dev_servers import Valkey
from tests.running import Running, Starter, until

_numbers = count()


def valkey(start: Starter) -> str:
    """Starts it; the URL for Celery."""
    return run_valkey(start)[1]


def run_valkey(start: Starter, *options: str) -> tuple[Running, str]:
    """The process, which keeps nothing on disk, and its URL, which is always the same."""
    valkey = Valkey(start.folder)
    server = start.command(*valkey.command, *options)
    until(lambda: valkey.is_ready(server.process.pid))
    return server, valkey.url


def url_of(start: Starter) -> str:
    """Where a Valkey of this folder is, or would be."""
    return Valkey(start.folder).url


def client_of(start: Starter) -> redis.Redis:
    """To look into it."""
    return redis.Redis(unix_socket_path=str(Valkey(start.folder).socket))


def celery_worker(start: Starter, app: str, **how: str) -> Running:
    """`celery -A app worker` with two processes, ready for work."""
    celery = str(Path(sys.executable).with_name("celery"))
    name = f"worker{next(_numbers)}@%h"  # on RabbitMQ, two of one name refuse each other
    options = (
        "-n",
        name,
        "--concurrency",
        "2",
        "--without-gossip",
        "--without-mingle",
        "--loglevel",
        "info",
    )
    running = start.command(celery, "-A", app, "worker", *options, **how)
    running.says(r"\bready\.")
    return running
