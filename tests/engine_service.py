"""A small service for tests that kill it: `python -m tests.engine_service FILE`.

It starts lanes, has jobs leave programs behind and block in every way, writes FILE (JSON of the
processes' ids) when all of them run, and waits. With `exec` as second argument it then becomes another
program without closing anything.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from jobs.processes import children
from jobs.protocols import Started
from tests.engine_play import playing


async def main(file: Path, then: str) -> None:
    held = os.open(f"{file}.lock", os.O_CREAT | os.O_RDWR)
    ways = ["sleep"] if then == "exec" else ["sleep", "hold the GIL"]
    async with playing(slots=len(ways) + 1, hold=held) as play:
        await play.has_room(len(ways) + 1)
        left = [f"{file}.{n}" for n in range(len(ways))]
        for way, name in zip(ways, left, strict=True):
            play.start("leaves_a_program", file=name, then=way)
        while not all(Path(name).exists() and Path(name).read_text() for name in left):
            await asyncio.sleep(0.01)
        programs = [int(Path(name).read_text()) for name in left]
        lanes = [event.pid for event in play.events if isinstance(event, Started)]
        servers = children(os.getpid())
        everything = {*programs, *lanes, *servers}
        for server in servers:
            everything |= set(children(server))
        Path(f"{file}.part").write_text(json.dumps(sorted(everything)))
        Path(f"{file}.part").rename(file)
        if then == "exec":
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
