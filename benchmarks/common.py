"""What the benchmarks share: processes that are surely ended, percentiles, and one line a figure.

Every comparison runs both sides in the same run, in turn, because machines differ and drift.
"""

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def report(name: str, values: Sequence[float], unit: str) -> float:
    """Print the median with its range; returns the median."""
    middle = statistics.median(values)
    print(
        f"  {name:58} {middle:10.4g} {unit}  ({min(values):.4g} to {max(values):.4g})", flush=True
    )
    return middle


def verdict(name: str, ratio: float, target: str) -> None:
    """Print a ratio beside its target."""
    print(f"  => {name}: {ratio:.3g} (target {target})", flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder on the disk that the project is on, not in memory."""
    with tempfile.TemporaryDirectory(
        prefix="bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")
    ) as name:
        yield Path(name)


@contextlib.contextmanager
def running(
    *command: object, ready: Callable[[], bool], **env: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A process and all it starts, from when it is ready to the end of the block."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env={**_environment(), **{key: str(value) for key, value in env.items()}},
        stdout=subprocess.DEVNULL,
        stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(ready, process)
        yield process
    finally:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for member in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """That of what is measured: with bytecode kept, as users have it."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 30
) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            raise SystemExit(
                f"{process.args} ended with {process.returncode}; BENCH_VERBOSE=1 shows why"
            )
        if time.monotonic() > end:
            raise SystemExit(f"{process.args} was not ready after {seconds} s")
        time.sleep(0.05)


def answers(url: str) -> Callable[[], bool]:
    """Whether the URL is served, whatever the answer."""

    def ready() -> bool:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    return ready


def serve(database: Path, port: int, *options: object) -> list[object]:
    """The command that serves the benchmarks' app."""
    return [
        sys.executable, "-m", "service.cli", "serve", "--app", "benchmarks.app:app",
        "--bind", f"127.0.0.1:{port}", "--database", database, *options,
    ]  # fmt: skip


def pss_mib(pid: int) -> float:
    """Proportional set size of a process and all its descendants, MiB."""
    root = psutil.Process(pid)
    total = 0
    for process in (root, *root.children(recursive=True)):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


async def windowed(work: Callable[[], Awaitable[object]], count: int, width: int) -> float:
    """Do `work` that many times with `width` under way; jobs a second."""
    left = count

    async def one_after_another() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await work()

    start = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(width)))
    return count / (time.perf_counter() - start)
