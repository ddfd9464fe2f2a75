"""What Linux offers for keeping hold of a tree of processes; elsewhere these do nothing.

A process that is a *subreaper* inherits its descendants when their parents end, so that nothing that
was ever started beneath it, forked or detached, gets away (prctl(2), PR_SET_CHILD_SUBREAPER).
"""

import contextlib
import ctypes
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = (
    5.0  #: seconds for killed processes to go: one in an uninterruptible wait may take longer
)

LINUX = sys.platform == "linux"

LANES_OF = "JOBS_LANES_OF"
"""Environment of the forkserver and of what descends from it: the `tree` of the service."""

_SECRET = secrets.token_hex(8)


def tree() -> str:
    """A name for this process and all that its lanes start; no other process has or had it."""
    return f"{os.getpid()}-{_SECRET}"


def become_subreaper() -> None:
    """From now on orphaned descendants become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_at_parents_end(number: int) -> None:
    """Have this process sent a signal when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def be_nice(nice: int) -> None:
    """Give way to other programs, by `nice` steps.

    Where Linux groups processes by session for scheduling (sched(7), autogroup), niceness counts only
    within the session, and a lane has one of its own: the group needs its own niceness."""
    os.nice(nice)
    if not _set_group_nice(nice):
        # For an ordinary user the kernel takes ten such changes a second, of all users together.
        threading.Thread(target=_insist, args=(nice,), name="jobs nice", daemon=True).start()


def _insist(nice: int) -> None:
    for _ in range(50):
        time.sleep(0.11)
        if _set_group_nice(nice):
            return


def _set_group_nice(nice: int) -> bool:
    """False if it may be tried again."""
    try:
        Path("/proc/self/autogroup").write_text(str(nice))
    except BlockingIOError:
        return False
    except OSError:
        return True  # not Linux, or without autogroup: niceness alone does it
    return True


def _prctl(option: int, value: int) -> None:
    if LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}")


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`, zombies included. Raises `OSError` when they cannot be known."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # gone meanwhile
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def has_ended(child: int) -> bool:
    """Whether this child of this process has ended; it is left for others to reap."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def strays(tree: str) -> set[int]:
    """The processes of that tree that are no longer beneath the one it is named after.
    Raises `OSError` when they cannot be known."""
    mark, root, found = f"{LANES_OF}={tree}".encode(), int(tree.partition("-")[0]), set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if entry.name.isdecimal() and mark in (entry / "environ").read_bytes():
                found.add(int(entry.name))
    return {pid for pid in found if not _is_beneath(pid, root)}


def kill_strays(tree: str) -> None:
    """Kill what a service has left running that died, and whose forkserver died before it could."""
    deadline = time.monotonic() + _PATIENCE
    with contextlib.suppress(OSError):  # they cannot be known
        while LINUX and (left := strays(tree)) and time.monotonic() < deadline:
            for pid in left:
                kill(pid)
            time.sleep(0.001)


def _is_beneath(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return False
    return pid == ancestor


def kill(pid: int) -> None:
    """SIGKILL, if it still lives and is not another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_children() -> None:
    """Kill every process beneath this one, a subreaper. About a microsecond where there is none."""
    deadline = 0.0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            continue
        now = time.monotonic()
        deadline = deadline or now + _PATIENCE
        left: list[int] = []
        with contextlib.suppress(OSError):  # a job has used up its descriptors
            left = children(os.getpid())
        if not left or now > deadline:
            return
        for each in left:  # their own children become ours, and are met in the next round
            kill(each)
        time.sleep(0.001)
