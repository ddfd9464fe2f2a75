"""One doorbell a process."""

import asyncio

from jobs.protocols import Wake


class Bell:
    """Gathers what has changed until somebody looks."""

    def __init__(self) -> None:
        self._changed = Wake(0)
        self._rung = asyncio.Event()

    def ring(self, wake: Wake) -> None:
        """Something may have changed; nothing, if `wake` is empty."""
        if wake:
            self._changed |= wake
            self._rung.set()

    async def wait(self) -> Wake:
        """What has changed since the last call, as soon as anything has."""
        while not self._changed:
            self._rung.clear()
            await self._rung.wait()
        changed, self._changed = self._changed, Wake(0)
        return changed
