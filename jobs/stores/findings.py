"""What a look at a machine or a database finds."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. Only a problem makes the examination fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what was seen, and what to do about it."""

    level: Level
    subject: str
    said: str
    advice: str = ""


def ok(subject: str, said: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, subject, said)


def warning(subject: str, said: str, advice: str) -> Finding:
    """It works, but not as well as it could, or not for long."""
    return Finding(Level.WARNING, subject, said, advice)


def problem(subject: str, said: str, advice: str = "") -> Finding:
    """It does not work."""
    return Finding(Level.PROBLEM, subject, said, advice)
