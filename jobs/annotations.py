"""The types in a task's signature: resolved, judged, and named when they will not do.

A type will do if pydantic can describe it as JSON Schema and its values survive the way to a child
and back. A missing annotation counts as `Any`.
"""

import inspect
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import (
    AsyncIterable,
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
)
from collections.abc import (
    Set as AbstractSet,
)
from dataclasses import is_dataclass
from enum import Enum
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from .errors import UnsupportedAnnotation

_OPEN = frozenset({list, tuple, set, frozenset, dict, deque, defaultdict, OrderedDict, Counter})
_OPEN |= {Collection, Sequence, MutableSequence, AbstractSet, MutableSet, Mapping, MutableMapping}

_PLAIN = frozenset({str, int, float, bool, NoneType})


class _Schema(GenerateJsonSchema):
    """Whether a schema can be made is all that is asked; a default that is not JSON does not matter."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default", "skipped-discriminator"}  # noqa: RUF012


def argument_types(fn: Callable[..., Any], task: str) -> dict[str, Any]:
    """The type of each parameter. Raises `UnsupportedAnnotation` naming task and parameter."""
    types = {}
    for name, parameter in inspect.signature(fn).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UnsupportedAnnotation(
                f"task {task}: {parameter} takes any number of arguments, which have no names to be kept"
                " under: make it one parameter, a list or a dict"
            )
        found = Any if parameter.annotation is parameter.empty else parameter.annotation
        where = f"task {task}: parameter {name!r}"
        types[name] = _resolved(found, fn, where)
        _judge(types[name], where, "validation")
    return types


def return_type(fn: Callable[..., Any], task: str) -> Any:
    """The type of the result. Raises `UnsupportedAnnotation`."""
    found = inspect.signature(fn).return_annotation
    where = f"task {task}: the return annotation"
    resolved = _resolved(Any if found is inspect.Signature.empty else found, fn, where)
    if resolved in (typing.NoReturn, typing.Never):
        return NoneType
    _judge(resolved, where, "serialization")
    return resolved


def may_change(annotation: Any) -> bool:
    """Whether values that this type admits may come back from JSON as something else: a `datetime` passed
    as `Any`, or as `datetime | str`, is a string there."""
    return any(
        part in (Any, object, Hashable)
        or isinstance(part, TypeVar)
        or (not get_args(part) and (get_origin(part) or part) in _OPEN)
        or (_is_union(part) and len([a for a in get_args(part) if a is not NoneType]) > 1)
        for part in _parts(annotation, [])
    )


def holds_secret(annotation: Any) -> bool:
    """Whether a secret may be in its values: what is such a type, or has one within."""
    return any(map(_is_secret, _parts(annotation, [])))


def is_plain(annotation: Any) -> bool:
    """Whether its values are what JSON's own types are in Python, with nobody's code between."""
    return all(
        part in _PLAIN or get_origin(part) in (list, dict) or _is_union(part)
        for part in _parts(annotation, [])
    )


def _resolved(annotation: Any, fn: Callable[..., Any], where: str) -> Any:
    """`annotation`, strings and forward references in it resolved."""
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(holder, inspect.unwrap(fn).__globals__, include_extras=True)["it"]
    except Exception as error:  # noqa: BLE001 - a string annotation may hold any expression
        raise UnsupportedAnnotation(
            f"{where}: {annotation!r} cannot be resolved: {error}"
        ) from None


def _judge(annotation: Any, where: str, mode: JsonSchemaMode) -> None:
    shown = inspect.formatannotation(annotation)
    try:
        TypeAdapter(annotation).json_schema(mode=mode, schema_generator=_Schema)
        for part in _parts(annotation, []):
            _judge_part(part, mode)
    except _Unsuitable as error:
        raise UnsupportedAnnotation(f"{where} ({shown}): {error}") from None
    except Exception as error:  # noqa: BLE001 - pydantic, or a type's own hook
        reason = str(error).split("\n", 1)[0].partition(". Set `arbitrary")[0]
        raise UnsupportedAnnotation(
            f"{where} ({shown}) is no type of JSON values: {reason}"
        ) from None


class _Unsuitable(Exception):
    """Why a type will not do."""


def _judge_part(part: Any, mode: JsonSchemaMode) -> None:
    kind = get_origin(part) or part
    if kind is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        adapter: TypeAdapter[Any] = TypeAdapter(part)
        values: Any = get_args(part) if kind is Literal else kind
        for value in values:
            try:
                survives = adapter.validate_json(adapter.dump_json(value)) == value
            except ValidationError:
                survives = False
            if not survives:
                raise _Unsuitable(f"{value!r} does not survive JSON")
    if not isinstance(kind, type):
        return
    if mode == "serialization" and _is_secret(kind):
        raise _Unsuitable("results are kept readable, so a secret may not be in them")
    if kind is type:
        raise _Unsuitable("a class does not travel")
    if mode == "validation" and (kind is Iterable or issubclass(kind, Iterator | AsyncIterable)):
        raise _Unsuitable("it would be read only later, piece by piece: use list or Sequence")


def _is_secret(part: Any) -> bool:
    kind = get_origin(part) or part
    return isinstance(kind, type) and issubclass(kind, SecretStr | SecretBytes | Secret)


def _parts(annotation: Any, seen: list[Any]) -> typing.Iterator[Any]:
    """`annotation` and every type within it, fields of models, dataclasses and the like included."""
    if any(annotation is other for other in seen):
        return
    seen.append(annotation)
    yield annotation
    inner: list[Any] = []
    kind = get_origin(annotation) or annotation
    if get_origin(annotation) is Annotated:
        inner.append(get_args(annotation)[0])
    elif kind is not Literal:
        inner.extend(arg for arg in get_args(annotation) if not isinstance(arg, list))
    aliases = ("__value__", "__supertype__")  # of `type X = …`, of NewType
    inner.extend(getattr(annotation, name) for name in aliases if hasattr(annotation, name))
    if isinstance(kind, type):
        if issubclass(kind, BaseModel):
            inner.extend(field.annotation for field in kind.model_fields.values())
        elif is_dataclass(kind) or typing.is_typeddict(kind) or hasattr(kind, "_fields"):
            inner.extend(get_type_hints(kind, include_extras=True).values())
    for part in inner:
        yield from _parts(part, seen)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)
