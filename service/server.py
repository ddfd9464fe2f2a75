"""Serving: Hypercorn, and everything that is particular to it, behind two functions."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

import hypercorn.protocol
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from quart import Quart

from jobs import ConfigurationError, Jobs, JobsError
from jobs.settings import Settings

from .api.principal import by_key
from .front import Front
from .guard import Guard
from .http1 import StrictHTTP1
from .lifespan import Lifespan

BACKLOG = 1024
REQUEST_SHARE = 0.3  #: of the grace: how long requests may go on when the service is to stop
AS_ONE = (
    0.5  #: seconds in which signals count as one: some tools signal a process and then its group
)
LEEWAY = 5.0  #: seconds past the grace after which the process ends by force

log = logging.getLogger("service.server")


class AddressUnusable(JobsError):
    """The address to listen on is taken, or is not one of this machine's."""


def bind(address: str) -> socket.socket:
    """A listening socket on HOST:PORT. Raises `ConfigurationError`, `AddressUnusable`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigurationError(f"--bind {address!r}: expected HOST:PORT, such as 127.0.0.1:8000")
    listener = None
    try:
        family, kind, proto, _, found = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found)
        # Only a listening socket keeps others off its address.
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise AddressUnusable(f"cannot listen on {address}: {error.strerror or error}") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def address_of(listener: socket.socket) -> str:
    """Where it listens, HOST:PORT."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_exposed(listener: socket.socket) -> bool:
    """Whether other machines can reach it."""
    address = ip_address(listener.getsockname()[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return not (mapped or address).is_loopback


async def serve(
    app: Quart, jobs: Jobs, listener: socket.socket, *, ready: Callable[[], None], watch: int | None
) -> None:
    """Serve until SIGTERM or SIGINT, then stop: requests, jobs, app, within the grace.

    Args:
        ready: called once the app has started.
        watch: a file descriptor whose end of file is taken for SIGTERM.
    """
    stop = Stop()
    if watch is not None:
        stop.watch(watch)
    lifespan = Lifespan(app, jobs)
    await lifespan.startup()
    try:
        settings = jobs.settings
        stop.grace = settings.grace
        front = Front(app, jobs, max_requests=settings.max_requests)
        # Hypercorn has no other place to say it.
        hypercorn.protocol.H11Protocol = StrictHTTP1  # type: ignore[attr-defined]
        server = asyncio.create_task(
            hypercorn_serve(
                Guard(front, settings, caller=by_key(jobs.keys)),
                _config(listener, settings),
                shutdown_trigger=stop.event.wait,
            )
        )
        ready()
        stopping = asyncio.create_task(stop.event.wait())
        await asyncio.wait({server, stopping}, return_when=asyncio.FIRST_COMPLETED)
        front.end_streams()
        await asyncio.wait({server}, timeout=REQUEST_SHARE * stop.grace)
        front.end()
        # Hypercorn waits for ever for a client that does not read; the jobs shall not wait with it.
        await asyncio.wait({server}, timeout=1)
        if not server.done():
            asyncio.get_running_loop().set_exception_handler(_without_cancellations)
            server.cancel()
            await asyncio.wait({server}, timeout=1)
    finally:
        await lifespan.shutdown()
    if server.done() and not server.cancelled():
        server.result()


async def run_without_http(jobs: Jobs, *, ready: Callable[[], None]) -> None:
    """Keep the lanes open until SIGTERM or SIGINT."""
    stop = Stop()
    async with jobs:
        stop.grace = jobs.settings.grace
        ready()
        await stop.event.wait()


class Stop:
    """Set by the first signal. A second one ends the process at once, and so does a shutdown that
    takes longer than the grace allows.

    Args:
        last: what is still to be done before the process ends at once.
    """

    def __init__(self, last: Callable[[], None] = lambda: None) -> None:
        self.event = asyncio.Event()
        self.grace = 10.0
        self._last = last
        self._first_at = 0.0
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, number)

    def watch(self, descriptor: int) -> None:
        """Take the end of file of `descriptor` for a signal: whoever started this process is gone."""

        def wait() -> None:
            while os.read(descriptor, 1):
                pass
            # The loop may be stuck: the deadline must not depend on it.
            self._set_deadline()
            self._loop.call_soon_threadsafe(self.event.set)

        threading.Thread(target=wait, name="supervisor watch", daemon=True).start()

    def _signalled(self, number: int) -> None:
        if not self._first_at:
            self._first_at = time.monotonic()
            self.event.set()
            self._set_deadline()
        elif time.monotonic() - self._first_at > AS_ONE:
            self._last()
            os._exit(128 + number)

    def _set_deadline(self) -> None:
        timer = threading.Timer(longest_stop(self.grace), self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        print("quart-jobs: the shutdown took too long; ended by force", file=sys.stderr, flush=True)
        self._last()
        os._exit(1)


def longest_stop(grace: float) -> float:
    """Seconds after which a process that was asked to stop has ended, by force if need be."""
    return grace * (1 + REQUEST_SHARE) + LEEWAY


def _without_cancellations(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Python 3.11 reports a cancelled connection as an error in a callback."""
    if not isinstance(context.get("exception"), asyncio.CancelledError):
        loop.default_exception_handler(context)


def _config(listener: socket.socket, settings: Settings) -> Config:
    config = Config()
    # Until the head of a request is there. `read_timeout` stays unset: it would also end the wait of a
    # client for its answer.
    config.keep_alive_timeout = settings.keep_alive_timeout
    # A head within the limits passes in whatever pieces it comes: line ends and the like are 4 bytes a field.
    config.h11_max_incomplete_size = (
        settings.max_header_bytes + settings.max_url_bytes + 4 * settings.max_headers + 256
    )
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = BACKLOG
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    return config
