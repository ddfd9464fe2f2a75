"""How far a running job says it is."""

import json
from typing import NamedTuple

MAX_MESSAGE = 1000  #: characters
MOST = 2**53  #: beyond it a number in JSON is no longer exact for everyone who reads it


class ProgressNote(NamedTuple):
    """One call of `current_job.progress`. Made often, and mostly for nothing: it becomes text when it is sent."""

    done: float
    total: float | None = None
    message: str | None = None

    def check(self) -> None:
        """Raises ValueError, naming what is wrong."""
        for name, value in (("done", self.done), ("total", self.total)):
            if value is None and name == "total":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"progress: {name} must be a number, not {value!r}")
            if not 0 <= value <= MOST:
                raise ValueError(f"progress: {name} must be from 0 to 2**53, not {value!r}")
        if self.message is not None and not isinstance(self.message, str):
            raise ValueError(f"progress: message must be text, not {self.message!r}")

    def to_json(self) -> str:
        """As it is stored and shown: ASCII, without NUL."""
        message = self.message
        if message is not None:
            message = (
                message[:MAX_MESSAGE].encode("utf-8", "replace").decode().replace("\0", "\ufffd")
            )
        return json.dumps({"done": self.done, "total": self.total, "message": message})
