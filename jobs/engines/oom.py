"""Whether the kernel has killed something because memory ran out: what tells that from any other SIGKILL."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic


def counters(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """The files that count OOM kills, the one that is most about this process first.

    Each has a line `oom_kill <n>`: memory.events of cgroup v2, memory.oom_control of v1 (both in
    Documentation/admin-guide of the kernel), and /proc/vmstat, which counts for the whole machine.
    """
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    return [*_of_cgroups(lines, cgroups), proc / "vmstat"]


def _of_cgroups(lines: Iterable[str], cgroups: Path) -> Iterator[Path]:
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            top, name = cgroups / "memory", "memory.oom_control"
        elif not controllers:
            top, name = cgroups, "memory.events"
        else:
            continue
        yield top / path.lstrip("/") / name
        yield top / name  # a container may see its own cgroup as the top, whatever the path says


class OomWatch:
    """Counts OOM kills by the first of these files that does count them."""

    def __init__(self, files: Sequence[Path] | None = None) -> None:
        candidates = counters() if files is None else files
        self._file = next((file for file in candidates if _kills(file) is not None), None)
        self._count = self._kills()
        self._struck_at = -math.inf

    def look(self) -> None:
        """Take note of kills since the last look. Some microseconds; the oftener, the more exactly is their
        time known."""
        count = self._kills()
        if count > self._count:
            self._struck_at = monotonic()
        self._count = count

    def struck_since(self, moment: float) -> bool:
        """Whether there has been an OOM kill since then (monotonic clock)."""
        self.look()
        return self._struck_at >= moment

    def _kills(self) -> int:
        return (_kills(self._file) if self._file is not None else None) or 0


def _kills(file: Path) -> int | None:
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None
