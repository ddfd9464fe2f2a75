"""Where a database is and what lies beside it; and whether it may be there at all."""

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jobs.errors import DatabaseUnusable

APPLICATION_ID = 0x716A6F62  #: "qjob" in the file's header: a database of this package

MOUNTS = Path("/proc/self/mountinfo")

_SHARED = frozenset(
    {
        *(
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "coda",
            "davfs",
            "fuse",
            "gfs2",
            "glusterfs",
            "gpfs",
        ),
        *("lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs"),
        *("vboxsf", "virtiofs"),
    }
)
"""File systems that other machines may share, or that need not share memory among processes. Every
`fuse.*` counts: what is behind it cannot be told."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database file, by its real path, so that all who open it agree on the files beside it."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "Place":
        """The place that `path`, which may lead through links, means."""
        return cls(path.expanduser().resolve())

    @property
    def gate(self) -> Path:
        """The file whose lock a writer holds."""
        return self.path.with_name(self.path.name + "-gate")

    @property
    def log(self) -> Path:
        """SQLite's write-ahead log, which belongs to the database: it holds the latest commits."""
        return self.path.with_name(self.path.name + "-wal")

    @property
    def log_index(self) -> Path:
        """What processes that use the log share of it."""
        return self.path.with_name(self.path.name + "-shm")

    @property
    def ballast(self) -> Path:
        """The file that keeps disk space back."""
        return self.path.with_name(self.path.name + "-ballast")

    @property
    def claimants(self) -> Path:
        """The folder of the files that living processes hold."""
        return self.path.with_name(self.path.name + "-claimants")

    def check(self, *, allow_network_filesystem: bool = False) -> None:
        """Raise `DatabaseUnusable` if a database cannot or must not be here. Touches nothing."""
        folder = self.path.parent
        if not folder.is_dir():
            raise DatabaseUnusable(
                f"the folder {folder} for the database does not exist: create it, or name another"
            )
        if self.path.exists() and not self.path.is_file():
            raise DatabaseUnusable(f"{self.path} is not a file: name a file for the database")
        kind = filesystem(folder)
        if not allow_network_filesystem and kind.partition(".")[0] in _SHARED:
            raise DatabaseUnusable(
                f"the database {self.path} would be on a network file system ({kind}), where SQLite can lose"
                " data: name a file on a local disk (or set JOBS_ALLOW_NETWORK_FILESYSTEM=1 at your own risk)"
            )
        for path in (folder, self.path, self.gate, self.claimants):
            needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
            if path.exists() and not os.access(path, needed):
                raise DatabaseUnusable(
                    f"the database {self.path} is read-only, because {path} is not writable for this user"
                    " or its file system is read-only: change that, or name another file"
                )

    def look(self) -> int:
        """The schema version in the file's header; 0 if there is nothing yet.

        Raises `DatabaseUnusable` if the file is not a SQLite database, or another program's. Touches
        nothing."""
        header = b""
        if not self._open_in_this_process():
            with suppress(FileNotFoundError), self.path.open("rb") as file:
                header = file.read(100)
        if not header:
            return 0
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            raise DatabaseUnusable(
                f"{self.path} is not a SQLite database: name another file, or move this one away"
            )
        schema, version, application = struct.unpack(">40xI16xI4xI28x", header)
        if schema and application != APPLICATION_ID:
            raise of_another_program(self.path)
        return int(version)

    def _open_in_this_process(self) -> bool:
        # Closing a second descriptor of a file drops every POSIX lock the process has on it, SQLite's too.
        for fd in os.listdir("/dev/fd"):
            with suppress(OSError):
                if os.path.samestat(os.fstat(int(fd)), self.path.stat()):
                    return True
        return False

    def secure(self) -> None:
        """Only the owner reads the database and what lies beside it."""
        for path in (self.path, self.gate, self.log, self.log_index):
            with suppress(FileNotFoundError, PermissionError):
                path.chmod(0o600)


class Original:
    """The file that was opened, to notice when its path leads to it no longer."""

    def __init__(self, path: Path) -> None:
        self._path, self._opened = path, os.stat(path)

    def check(self) -> None:
        """Raise `DatabaseUnusable` if another file, or none, has taken its place."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            self._refuse("deleted")
        if not os.path.samestat(now, self._opened):
            self._refuse("replaced")
        if now.st_size == 0:
            self._refuse("emptied")

    def _refuse(self, how: str) -> NoReturn:
        raise DatabaseUnusable(
            f"the database {self._path} was {how} while it was in use, so nothing more is written: stop all"
            " processes that use it, put it back or restore a backup, and start them again"
        )


def filesystem(folder: Path) -> str:
    """The type of the file system a folder is on, as the kernel names it; "" where that cannot be told."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with suppress(FileNotFoundError):
        for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == wanted:
                return rest.split()[0]
    return ""


def of_another_program(path: Path) -> DatabaseUnusable:
    """The file has tables, and none are ours."""
    return DatabaseUnusable(
        f"the database {path} belongs to another program: name a file of its own for the jobs"
    )
