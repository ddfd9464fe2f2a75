"""An event stream of an app under test, read as it comes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from quart import Quart

PATIENCE = 15.0  #: seconds until a test gives up


class Told(NamedTuple):
    """One event."""

    kind: str
    id: str
    data: Any


def parse(text: str) -> Told | None:
    """One block of a stream; None for a comment, or the time to come again."""
    fields = dict(line.split(": ", 1) for line in text.split("\n") if not line.startswith(":"))
    if "event" not in fields:
        assert set(fields) <= {"retry"}
        return None
    return Told(fields["event"], fields.get("id", ""), json.loads(fields["data"]))


class Following:
    """A stream that has been asked for."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._text = ""
        self.told: list[Told] = []
        self.beats = 0

    async def open(self) -> int:
        """Wait for the first of it; the status of the answer."""
        async with asyncio.timeout(PATIENCE):
            self._text += (await self._connection.receive()).decode()
        return int(self._connection.status_code)

    @property
    def headers(self) -> Any:
        return self._connection.headers

    @property
    def text(self) -> str:
        """What has come and is no whole block."""
        return self._text

    async def next(self) -> Told | None:
        """The next event; None at the stream's end."""
        async with asyncio.timeout(PATIENCE):
            while True:
                block, found, rest = self._text.partition("\n\n")
                if found:
                    self._text = rest
                    told = parse(block)
                    if told is not None:
                        self.told.append(told)
                        return told
                    self.beats += block.startswith(":")
                    continue
                piece = await self._connection.receive()
                if not piece:
                    return None
                self._text += piece.decode()

    async def until(self, kind: str) -> Told:
        """The next event of that kind."""
        while (told := await self.next()) is not None:
            if told.kind == kind:
                return told
        raise AssertionError(f"the stream has ended without {kind}: {self.told}")

    async def beat(self) -> None:
        """Wait for a comment."""
        beats = self.beats
        async with asyncio.timeout(PATIENCE):
            while self.beats == beats:
                while "\n\n" not in self._text:
                    self._text += (await self._connection.receive()).decode()
                block, _, self._text = self._text.partition("\n\n")
                self.beats += block.startswith(":")

    async def all(self) -> list[Told]:
        """Every event there is, to the end."""
        while await self.next() is not None:
            pass
        return self.told

    async def leave(self) -> None:
        """Go away, as a client does that closes its connection."""
        await self._connection.disconnect()


@asynccontextmanager
async def following(app: Quart, path: str, **headers: str) -> AsyncIterator[Following]:
    """Ask for a stream, and go away with the block if it has not ended."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()}
    async with app.test_client().request(path, headers=fields) as connection:
        await connection.send_complete()
        stream = Following(connection)
        try:
            yield stream
        finally:
            await stream.leave()
