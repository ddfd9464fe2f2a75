"""2,000 open event streams on one service, two lanes:

- memory of the service for each (PSS with them less PSS without);
- GET /jobs/<id> with none, with streams that are silent, and with all of them following one job that says
  something ten times a second.

    python -m benchmarks.streams
"""

import asyncio
import os
import resource
import time
from pathlib import Path

import psutil

from benchmarks.common import ROUNDS, answers, folder, free_port, report, running, serve, verdict
from benchmarks.web import get_p99, post

STREAMS = int(os.environ.get("BENCH_STREAMS", "2000"))
_AT_ONCE = 50  #: connections that are being opened


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * STREAMS + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    asyncio.run(_measure())


async def _measure() -> None:
    print(f"{STREAMS} event streams, one service, two lanes")
    figures: dict[str, list[float]] = {"each": [], "none": [], "silent": [], "told": []}
    for _ in range(ROUNDS):
        await _round(figures)
    report("PSS of the service for each stream", figures["each"], "KiB")
    none = report("GET /jobs/<id>, p99, no streams", figures["none"], "ms")
    silent = report("the same, silent streams", figures["silent"], "ms")
    told = report("the same, each told of progress 10 times a second", figures["told"], "ms")
    verdict("PSS a stream, KiB", sorted(figures["each"])[ROUNDS // 2], "≤ 40")
    verdict("p99, silent streams / none", silent / none, "< 2")
    verdict("p99, streams at work / none", told / none, "reported")


async def _round(figures: dict[str, list[float]]) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ("--lanes", 2, "--max-streams", STREAMS)
    with (
        folder() as where,
        running(*serve(where / "a.db", port, *options), ready=answers(url)) as process,
    ):
        ended = post(f"{url}/jobs", {"task": "bench.noop"})
        waiting = post(f"{url}/jobs", {"task": "bench.noop", "countdown": 3600})
        target = f"{url}/jobs/{ended['id']}"
        await asyncio.to_thread(get_p99, target)
        figures["none"].append(await asyncio.to_thread(get_p99, target))
        before = _pss_kib(process.pid)
        clients = await _follow(port, f"/jobs/{waiting['id']}/events")
        await asyncio.sleep(1)
        figures["each"].append((_pss_kib(process.pid) - before) / STREAMS)
        figures["silent"].append(await asyncio.to_thread(get_p99, target))
        await _leave(clients)

        talking = post(f"{url}/jobs", {"task": "bench.talk", "args": [3600]})
        clients = await _follow(port, f"/jobs/{talking['id']}/events")
        reading = [asyncio.create_task(_read(reader)) for reader, _ in clients]
        figures["told"].append(await asyncio.to_thread(get_p99, target))
        for each in reading:
            each.cancel()
        await _leave(clients)


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _follow(port: int, path: str) -> list[Client]:
    turn = asyncio.Semaphore(_AT_ONCE)
    return list(await asyncio.gather(*(_open(port, path, turn) for _ in range(STREAMS))))


async def _open(port: int, path: str, turn: asyncio.Semaphore) -> Client:
    async with turn:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status = await reader.readline()
        if b" 200 " not in status:
            raise SystemExit(f"a stream was answered {status!r}")
        await reader.readuntil(b"event: submitted")
    return reader, writer


async def _read(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _leave(clients: list[Client]) -> None:
    for _, writer in clients:
        writer.close()
    await asyncio.sleep(2)


def _pss_kib(pid: int) -> float:
    """Of the service process alone: its children have no streams."""
    time.sleep(0.2)
    rollup = Path(f"/proc/{psutil.Process(pid).pid}/smaps_rollup").read_text()
    return float(rollup.partition("Pss:")[2].split()[0])


if __name__ == "__main__":
    main()
