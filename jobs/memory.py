"""How much memory this process has, and a cap on what it may have more. Nothing of it outside Linux.

The cap is RLIMIT_DATA, which counts private writable mappings (getrlimit(2), since Linux 4.7): the heap and the
stacks of threads. RLIMIT_AS would count what is only reserved too: 64 MiB for the heap of each thread.
"""

import contextlib
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .processes import LINUX

MIB = 1_048_576

_RELIEF = 2 * MIB


def resident() -> int:
    """Bytes of this process in memory; 0 where that is not known."""
    return _statm("self", 1)


def peak() -> int:
    """Bytes, the most that this process had in memory."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * 1024 if LINUX else most


def of_machine() -> int:
    """Bytes that the machine has, or that the cgroup of this process may use if that is less."""
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            have = min(have, int(Path("/sys/fs/cgroup", path).read_text()))
    return have


def _nothing() -> None:
    pass


class Cap:
    """A cap on what this process may have from now on: `mb` MiB more than now, until `lift()`. What needs
    more gets a `MemoryError`; processes that it starts have the same limit.

    `lift` allocates nothing: at its limit a process could not call a Python function.
    """

    def __init__(self, mb: int | None) -> None:
        self._mb = mb
        self.lift: Callable[[], object] = _nothing
        if mb is None or not LINUX:
            return
        before = resource.getrlimit(resource.RLIMIT_DATA)
        limits = [limit for limit in before if limit != resource.RLIM_INFINITY]
        cap = min([_statm("self", 5) + mb * MIB, *limits])
        resource.setrlimit(resource.RLIMIT_DATA, (cap, before[1]))
        self.lift = partial(resource.setrlimit, resource.RLIMIT_DATA, before)

    def explain(self, error: MemoryError) -> MemoryError:
        """The same error, with words where it was this cap."""
        if self.lift is _nothing:
            return error
        return MemoryError(
            f"the job needed over {self._mb} MiB more than its process had when it began, and its task allows"
            f" no more (max_memory_mb={self._mb})"
        ).with_traceback(error.__traceback__)


UNCAPPED = Cap(None)


def used_at_cap(pid: int) -> int:
    """Bytes that count against the cap of another process, if it has less than a MiB left; else 0."""
    with contextlib.suppress(OSError, ValueError):  # it has ended
        limit, _ = resource.prlimit(pid, resource.RLIMIT_DATA)
        used = _statm(pid, 5)
        if limit != resource.RLIM_INFINITY and used > limit - MIB:
            return used
    return 0


def relieve(pid: int) -> None:
    """Let another process have a little more than its cap."""
    with contextlib.suppress(OSError, ValueError):
        limit, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        more = limit + _RELIEF if hard == resource.RLIM_INFINITY else min(limit + _RELIEF, hard)
        resource.prlimit(pid, resource.RLIMIT_DATA, (more, hard))


def _statm(pid: int | str, field: int) -> int:
    """A field of /proc/…/statm, in bytes: 1 is what is resident, 5 data and stack."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[field]) * resource.getpagesize()
    except OSError:
        return 0
