"""Work that nobody waits for."""

import asyncio
from typing import Any


async def end(task: "asyncio.Task[None]") -> None:
    """Stop a task, and return when it has."""
    task.cancel()
    await asyncio.wait({task})


def unheeded(future: "asyncio.Future[Any]") -> None:
    """Nobody waits for this one: its failure is not news."""
    if not future.cancelled():
        future.exception()
