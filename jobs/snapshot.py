"""A request as a value: what of it travels with a job.

The body does not; neither does anything of a websocket. How a request is taken, and made again, is in
`jobs.frameworks`.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_core import to_json, to_jsonable_python

from . import strict_json
from .errors import BadContext, InvalidJson, NotCarriable

_TRACEPARENT = re.compile(r"[\da-f]{2}-(?!0{32})([\da-f]{32})-[\da-f]{16}-[\da-f]{2}(?:-.*)?")


class RequestSnapshot(BaseModel):
    """One request, without its body. `globals` is what was on `g`; W3C trace context is in the headers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    method: str
    scheme: str
    host: str
    root_path: str
    path: str  #: decoded, below `root_path`
    query_string: str  #: raw, as Latin-1
    headers: tuple[tuple[str, str], ...]  #: in order, repeats kept
    client: str | None  #: its address
    http_version: str
    globals: dict[str, JsonValue] = {}

    @classmethod
    def read(cls, text: bytes) -> Self:
        """The snapshot that was written as this JSON. Raises `BadContext`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:  # its text would show what was sealed
            raise BadContext("the request snapshot is not one that this version reads") from None

    @property
    def trace_id(self) -> str | None:
        """The trace that the request is part of, by its `traceparent` header."""
        for name, value in self.headers:
            if name.lower() == "traceparent":
                found = _TRACEPARENT.fullmatch(value.strip())
                return found[1] if found else None
        return None


@dataclass(frozen=True, slots=True)
class Carrier:
    """How a value of `g` that is not JSON travels: `save` makes JSON of it at once, where the request is;
    `load`, which may be async, makes it again in the child."""

    save: Callable[[Any], Any]
    load: Callable[[Any], Any | Awaitable[Any]]


def origin(snapshot: RequestSnapshot, request: Any) -> str:
    """JSON text of what stays readable beside a sealed snapshot: method, route, trace id."""
    route = None if request.url_rule is None else request.url_rule.rule
    seen = {"method": snapshot.method, "route": route, "trace_id": snapshot.trace_id}
    return to_json(seen).decode()


def carried(
    g: Any, names: Collection[str], carriers: Mapping[str, Carrier]
) -> dict[str, JsonValue]:
    """The values of `g` that travel, as JSON; a name that is not set is left out. Raises `NotCarriable`."""
    values = {}
    for name in sorted(names):
        if name in g:
            value, carrier = g.get(name), carriers.get(name)
            values[name] = _saved(name, value, carrier)
    return values


def _saved(name: str, value: Any, carrier: Carrier | None) -> Any:
    kind = type(value).__qualname__
    if carrier is not None:
        try:
            value = carrier.save(value)
        except Exception as error:
            raise NotCarriable(
                f"g.{name} ({kind}) cannot travel: save failed: {error!r}"
            ) from error
        if inspect.iscoroutine(value):
            value.close()
            raise NotCarriable(
                f"g.{name} cannot travel: the carrier's save is async, only load may be"
            )
    try:
        plain = _plain(value)
        if problems := list(strict_json.wrong_values(plain, f"/{name}")):
            raise InvalidJson(problems)
        strict_json.check(to_json(plain), max_bytes=None, where=f"/{name}")
    except InvalidJson as error:
        raise NotCarriable(f"g.{name} ({kind}) cannot travel with a job: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        why = f"what its carrier's save made of it is no JSON: {error}"
        if carrier is None:
            why = (
                f"{error}. Carry a JSON value instead, such as its id, or say how it travels:"
                f" jobs.carrier({name!r}, save=…, load=…)"
            )
        raise NotCarriable(f"g.{name} ({kind}) cannot travel with a job: {why}") from None
    return plain


def _plain(value: Any) -> Any:
    """`value` as JSON's own types; models and dataclasses are dumped, nothing else is."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        return to_jsonable_python(value, inf_nan_mode="constants")
    raise TypeError(f"{type(value).__qualname__} is no JSON")
