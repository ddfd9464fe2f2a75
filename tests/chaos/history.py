"""What was asked, seen and done to the service during a run: all that can be told from outside.

Times are seconds of the monotonic clock, which every process of a machine shares.
"""

import json
import threading
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs.model import JobState


class Answer(StrEnum):
    """What a client knows of a request it made."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  #: the service promised that nothing was stored, or could not be reached
    UNKNOWN = "unknown"  #: no answer, or one that promises nothing


@dataclass(frozen=True, slots=True)
class Submission:
    """A request for a job. `token` is the client's own name for it, and travels as an argument."""

    token: str
    task: str
    sent: float
    done: float
    answer: Answer
    job_id: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """A request to stop a job; from when it was sent it may take effect."""

    job_id: str
    sent: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """How a job was seen to stand at a time. `state` as it is stored; None: there was no such job."""

    job_id: str
    time: float
    state: JobState | None
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done to the processes from outside.

    `member` is the process with its children, `pid` the one child that was hit; None is all of them.
    Only a `lethal` fault may cost an attempt: what merely stands still must lose nothing. One that sets `apart`
    kept them from what they share, the database or each other, and they lived on; it ends when they are
    together again.
    """

    kind: str
    began: float
    ended: float
    member: str | None = None
    pid: int | None = None
    lethal: bool = False
    apart: bool = False

    @property
    def whole(self) -> bool:
        """Whether it took the member itself, and not only children of it."""
        return self.kills and self.pid is None and self.kind != "kill_forkserver"

    @property
    def kills(self) -> bool:
        """Whether its victims died of it."""
        return self.lethal and not self.apart

    def hits(self, member: str, pid: int) -> bool:
        """Whether a process was among its victims."""
        return self.member in (None, member) and self.pid in (None, pid)


@dataclass(frozen=True, slots=True)
class Start:
    """A member was started; `ready` is when it said that it works."""

    member: str
    began: float
    ready: float


@dataclass(frozen=True, slots=True)
class Gone:
    """A killed member, and when the last process of its family had gone."""

    member: str
    killed: float
    gone: float


Event = Submission | Cancel | Sighting | Fault | Start | Gone


class History:
    """Collects events from any number of threads, and keeps them as JSON Lines for a post-mortem."""

    def __init__(self, path: Path | None = None) -> None:
        self._events: list[Event] = []
        self._turn = threading.Lock()
        self._file = None if path is None else path.open("a", buffering=1, encoding="utf-8")

    def add(self, event: Event) -> None:
        """Remember what happened."""
        with self._turn:
            self._events.append(event)
            if self._file is not None:
                self._file.write(json.dumps({"what": type(event).__name__} | asdict(event)) + "\n")

    def all(self, kind: type[Any]) -> list[Any]:
        """The events of a kind, in the order they were added."""
        with self._turn:
            return [event for event in self._events if isinstance(event, kind)]

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
