"""What pydantic found wrong, as JSON pointers into what was given."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from .errors import Problem
from .strict_json import escape

MAX_PROBLEMS = 100  #: a client that sends 50,000 wrong numbers gets this many of them back

_WORDS = {"missing": "is missing", "extra_forbidden": "is not expected"}


def problems_of(error: ValidationError, given: Any) -> list[Problem]:
    """Each error, in words, with a pointer into `given`."""
    found = error.errors(include_url=False, include_context=False)[:MAX_PROBLEMS]
    problems = [
        Problem(_pointer(each["loc"], given, each["type"]), _WORDS.get(each["type"], each["msg"]))
        for each in found
    ]
    return list(dict.fromkeys(problems))


def _pointer(loc: tuple[int | str, ...], given: Any, kind: str) -> str:
    """`loc` without what is no part of the input: the members of a union that were tried, the mark of a
    key. Of a missing member, the last part is not there, and is kept."""
    parts: list[int | str] = []
    here = given
    for index, part in enumerate(loc):
        inside = (
            part in here
            if isinstance(here, Mapping)
            else isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)
        )
        if inside:
            here = here[part]
        if inside or (kind == "missing" and index == len(loc) - 1):
            parts.append(part)
    return "".join(f"/{escape(part)}" for part in parts)
