"""A task's signature as a contract: what may go in, and how it crosses to a child and back.

The arguments are one JSON object, by parameter name. Its type is a closed `TypedDict` made from the
function's signature: a parameter may have any name, what was not given stays absent (the function's
own default applies, where it runs), and OpenAPI has a named component for it.

At rest, values are written and read by field name, so that any pydantic model survives the crossing;
what clients send is read, and results are written, by alias, as the JSON Schemas say.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict

from . import strict_json
from .annotations import argument_types, holds_secret, is_plain, may_change, return_type
from .errors import InvalidArguments, Problem
from .forms import held_to_forms
from .json_writer import JsonWriter
from .pointers import MAX_PROBLEMS, problems_of

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Signature:
    """What `fn`, registered as `task`, takes and returns.

    `arguments` and `result` are the pydantic adapters that JSON Schemas are made from; `secret` names the
    parameters whose values are to be sealed.
    Raises `UnsupportedAnnotation`.
    """

    def __init__(self, fn: Callable[..., Any], task: str) -> None:
        self._fn, self._task = fn, task
        self._parameters = inspect.signature(fn).parameters
        kinds = inspect.Parameter
        self._positional = [
            n for n, p in self._parameters.items() if p.kind is not kinds.KEYWORD_ONLY
        ]
        self._positional_only = [
            n for n, p in self._parameters.items() if p.kind is kinds.POSITIONAL_ONLY
        ]
        types = argument_types(fn, task)
        self.secret = frozenset(name for name, each in types.items() if holds_secret(each))
        self._fragile = [
            name for name, each in types.items() if may_change(each) or name in self.secret
        ]
        self._plain = all(map(is_plain, types.values()))
        self.arguments: TypeAdapter[dict[str, Any]] = TypeAdapter(self._typed_dict(types))
        returned = return_type(fn, task)
        self.result: TypeAdapter[Any] = TypeAdapter(returned)
        self._validator = self.arguments.validator
        self._strict = held_to_forms(self.arguments.core_schema) or self._validator
        self._writer = JsonWriter(
            self.arguments,
            "is not JSON",
            by_alias=False,
            round_trip=True,
            reveal=bool(self.secret),
        )
        misfit = (
            f"does not fit the return annotation of {task}, {inspect.formatannotation(returned)}"
        )
        self._result_writer = JsonWriter(self.result, misfit, by_alias=True, round_trip=False)

    def _typed_dict(self, types: Mapping[str, Any]) -> Any:
        fields = {
            name: each
            if self._parameters[name].default is inspect.Parameter.empty
            else NotRequired[_with_default(each, self._parameters[name].default)]
            for name, each in types.items()
        }
        name = re.sub(r"\W", "_", self._task) + "_Arguments"
        make: Any = TypedDict
        # Not closed by its config: dataclasses in it would inherit that, but not those within a model.
        made = make(name, fields, closed=True)
        made.__module__ = self._fn.__module__
        made.__pydantic_config__ = _CONFIG | {"title": f"{self._task}.Arguments"}
        return made

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """A Python call's arguments, validated as pydantic does by default, as canonical JSON: an object
        by parameter name of what was given. Raises `InvalidArguments`."""
        values = dict(zip(self._positional, args))  # noqa: B905 - too many are refused below
        if kwargs or len(args) > len(self._positional):
            self._refuse_miscall(args, kwargs)
            values.update(kwargs)
        try:
            valid = self._validator.validate_python(values)
        except ValidationError as error:
            raise InvalidArguments(problems_of(error, values)) from None
        text = self._writer.write(valid, None)
        if self._fragile:
            self._refuse_changed(valid, text)
        return text

    def accept(self, raw: bytes | str, max_bytes: int | None) -> str:
        """A client's JSON arguments, an object or an array, in the form that `bind` gives.

        Validated strictly, so that what is accepted is what the JSON Schema says: `"1"` is no number.
        `max_bytes` limits what the client sent, and the pointers of `InvalidArguments` point into that.
        """
        strict_json.check(raw, max_bytes=max_bytes)
        by_position = None
        if raw.lstrip()[:1] in (b"[", "["):
            by_position = from_json(raw)
            raw = to_json(self._by_name(by_position))
        try:
            valid = self._accepted(raw)
        except ValidationError as error:
            problems = problems_of(error, from_json(raw))
            if by_position is not None:
                problems = [self._to_position(problem) for problem in problems]
            raise InvalidArguments(problems) from None
        if self._plain:  # nothing has come to it that did not pass the gate above
            return to_json(valid).decode()
        return self._writer.write(valid, None)

    @property
    def needs_secrets(self) -> bool:
        """Whether a call without secret arguments is none."""
        empty = inspect.Parameter.empty
        return any(self._parameters[name].default is empty for name in self.secret)

    def split(self, text: str) -> tuple[str, str | None]:
        """What `bind` or `accept` wrote, without the secret arguments, and these alone; None if there are
        none. `join` is its reverse."""
        if not self.secret:
            return text, None
        readable = from_json(text)
        hidden = {name: readable.pop(name) for name in self.secret & readable.keys()}
        return to_json(readable).decode(), to_json(hidden).decode() if hidden else None

    def load(self, text: str) -> dict[str, Any]:
        """What `bind` or `accept` wrote, by parameter name, in the annotated types.

        Raises `InvalidArguments` if it is another signature's."""
        try:
            loaded: dict[str, Any] = self._validator.validate_json(
                text, by_alias=False, by_name=True
            )
        except ValidationError as error:
            raise InvalidArguments(problems_of(error, from_json(text))) from None
        return loaded

    def invoke(self, values: Mapping[str, Any]) -> Any:
        """Call the function with what `load` returned."""
        if not self._positional_only:
            return self._fn(**values)
        rest = dict(values)
        given = [name for name in self._positional_only if name in rest]
        leading = (
            self._positional_only[: self._positional_only.index(given[-1]) + 1] if given else []
        )
        positional = [
            rest.pop(name) if name in rest else self._parameters[name].default for name in leading
        ]
        return self._fn(*positional, **rest)

    def dump(self, result: Any, max_bytes: int | None) -> str:
        """A result as JSON by the return annotation. Raises `InvalidJson` if it does not fit."""
        return self._result_writer.write(result, max_bytes)

    def load_result(self, text: str) -> Any:
        """What `dump` wrote, in the annotated type."""
        return self.result.validator.validate_json(text, by_alias=True, by_name=True)

    def _accepted(self, raw: bytes | str) -> Any:
        try:
            return self._strict.validate_json(raw, strict=True)
        except ValidationError as error:
            # To JSON Schema 1.0 is an integer, to the strict validator it is not.
            if not any(isinstance(each["input"], float) for each in error.errors()):
                raise
        return self._strict.validate_json(to_json(_whole(from_json(raw))), strict=True)

    def _refuse_miscall(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        problems = []
        if len(args) > len(self._positional):
            detail = f"takes {len(self._positional)} positional arguments, {len(args)} were given"
            problems.append(Problem("", detail))
        taken = self._positional[: len(args)]
        for name in kwargs:
            pointer = f"/{strict_json.escape(name)}"
            if name in self._positional_only:
                problems.append(Problem(pointer, "is positional-only, but was given by name"))
            elif name in taken:
                problems.append(Problem(pointer, "is given twice, by position and by name"))
        if problems:
            raise InvalidArguments(problems)

    def _refuse_changed(self, values: Mapping[str, Any], text: str) -> None:
        loaded = self.load(text)
        problems = [
            Problem(
                f"/{strict_json.escape(name)}",
                f"would not arrive as it is ({type(values[name]).__qualname__}): annotate the parameter with its type",
            )
            for name in self._fragile
            if name in values and not _same(values[name], loaded[name])
        ]
        if problems:
            raise InvalidArguments(problems)

    def _by_name(self, values: list[Any]) -> dict[str, Any]:
        if len(values) > len(self._positional):
            raise InvalidArguments(
                [
                    Problem(
                        f"/{index}", f"the task takes {len(self._positional)} arguments by position"
                    )
                    for index in range(len(self._positional), min(len(values), MAX_PROBLEMS))
                ]
            )
        return dict(zip(self._positional, values, strict=False))

    def _to_position(self, problem: Problem) -> Problem:
        first, _, rest = problem.pointer[1:].partition("/")
        names = [strict_json.escape(name) for name in self._positional]
        if first not in names:
            return problem
        return Problem(f"/{names.index(first)}" + (f"/{rest}" if rest else ""), problem.detail)


def join(readable: str, hidden: str) -> str:
    """One JSON object of two that have no name in common."""
    return hidden if readable == "{}" else f"{readable[:-1]},{hidden[1:]}"


def _with_default(annotation: Any, default: Any) -> Any:
    """`annotation`, its JSON Schema naming the default if that is a JSON value of this type."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        text = adapter.dump_json(default, by_alias=True, warnings="error")
        if adapter.validate_json(text) != default:
            return annotation
    except (ValueError, TypeError):
        return annotation
    return Annotated[annotation, Field(json_schema_extra={"default": json.loads(text)})]


def _whole(value: Any) -> Any:
    """`value` with each float that is a whole number as an int."""
    if isinstance(value, dict):
        return {key: _whole(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_whole(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _same(value: Any, loaded: Any) -> bool:
    """Whether a value came back as it was; a tuple may be a list."""
    if isinstance(value, list | tuple) and isinstance(loaded, list | tuple):
        return len(value) == len(loaded) and all(map(_same, value, loaded))
    if isinstance(value, dict) and isinstance(loaded, dict):
        return value.keys() == loaded.keys() and all(_same(value[k], loaded[k]) for k in value)
    return bool(value == loaded)
