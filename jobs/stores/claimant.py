"""Which processes are alive: each holds a lock on a file named after it.

A pid says nothing across containers and is used again; a lock ends with its holder, whatever ends
that. Child processes that are handed the file keep their service alive in the others' eyes, so that
its jobs are not run twice at the same time. The programs that jobs start are not: those that outlive
all else are killed by whoever finds the service dead.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from jobs import processes


class Claimant:
    """This process, in the eyes of the others that share the database.

    Make one while holding the gate, and judge others while holding it: a file that is not locked yet
    looks dead."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / name
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """The locked file; alive means that some process has it open."""
        return self._fd

    def close(self) -> None:
        """No longer alive."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def new_name() -> str:
    """A name for a claimant; no other has or had it."""
    return f"{processes.tree()}.{secrets.token_hex(4)}"


def dead(folder: Path, names: Iterable[str], *, me: str) -> set[str]:
    """Those of `names`, and of the files in the folder, that no living process holds."""
    known = {*names, *os.listdir(folder)} - {me}
    return {name for name in known if not _alive(folder / name)}


def kill_what_is_left(dead: Iterable[str]) -> None:
    """Kill the processes that the dead have left on this machine."""
    for name in dead:
        tree, dot, _ = name.partition(".")
        if dot:  # else it is of a version that had no such names
            processes.kill_strays(tree)


def living(folder: Path) -> set[str]:
    """The names that some process holds; under the gate, as `dead`."""
    names = os.listdir(folder) if folder.is_dir() else []
    return {name for name in names if _alive(folder / name)}


def forget(folder: Path, names: Iterable[str]) -> None:
    """Remove the files of dead claimants."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _alive(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # another user's: not ours to judge
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
