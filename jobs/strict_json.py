"""The one gate for JSON: what passes here, every store and every client can hold.

Refused: what is not JSON, NaN and infinities (a number too large for a float is one), NUL characters,
lone surrogates, nesting deeper than `MAX_DEPTH`, and too many bytes.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from .errors import InvalidJson, JsonTooLarge, Problem

MAX_DEPTH = 64

_HUGE_NUMBER = re.compile(rb"[eE]\+?\d{3}|\d{300}")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile("[\ud800-\udfff]")


def check(raw: bytes | str, *, max_bytes: int | None, where: str = "") -> None:
    """Raise `InvalidJson`, with the pointer of each wrong value, unless `raw` is JSON that can be kept.

    `where` is put before every pointer; `max_bytes` None sets no limit.
    """
    try:
        data = raw.encode() if isinstance(raw, str) else raw
    except UnicodeEncodeError:
        raise InvalidJson([Problem(where, _LONE)]) from None
    if max_bytes is not None and len(data) > max_bytes:
        raise JsonTooLarge(
            [Problem(where, f"is {len(data)} bytes of JSON; at most {max_bytes} fit")]
        )
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise InvalidJson([Problem(where, _DEEP)])
    try:
        from_json(data, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise InvalidJson(_explain(data, str(error), where)) from None
    if b"\\u0000" in data or _HUGE_NUMBER.search(data):
        problems = list(wrong_values(json.loads(data), where))
        if problems:
            raise InvalidJson(problems)


def wrong_values(value: Any, where: str = "") -> Iterator[Problem]:
    """The strings and numbers within `value` (of JSON's types, or Python's own collections) that JSON
    cannot hold."""
    if isinstance(value, str):
        if "\0" in value:
            yield Problem(where, _NUL)
        if _SURROGATE.search(value):
            yield Problem(where, _LONE)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Problem(where, _INFINITE)
    elif isinstance(value, dict):
        for key, member in value.items():
            inside = f"{where}/{escape(_printable(str(key)))}"
            for problem in wrong_values(key):
                yield Problem(inside, f"the name {problem.detail}")
            yield from wrong_values(member, inside)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, member in enumerate(value):
            yield from wrong_values(member, f"{where}/{index}")


def escape(part: str | int) -> str:
    """One reference token of a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")


_NUL = "holds a NUL character, which not every store can keep"
_LONE = "holds a lone surrogate, which is not a character"
_INFINITE = "is NaN, infinite, or too large for a float, which JSON does not have"
_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


def _depth(data: bytes) -> int:
    deepest = depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKET):
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _explain(data: bytes, reason: str, where: str) -> list[Problem]:
    """Why the strict parser refused: Python's own lets NaN and lone surrogates by, so they can be found."""
    try:
        problems = list(wrong_values(json.loads(data), where))
    except ValueError:
        problems = []
    return problems or [Problem(where, f"is not JSON: {reason}")]


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
