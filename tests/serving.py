"""A real Hypercorn around an app, on a port of its own, in the test's own event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The server's address, `http://127.0.0.1:<port>`, while it runs."""
    # Listening before the server stands, so that a client that is early waits instead of failing.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = 2
        stop = asyncio.Event()
        server = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stop.set()
            await server
