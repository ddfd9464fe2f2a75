"""A task's signature is its contract: what goes in arrives as the same, and nothing else goes in."""

import asyncio
import dataclasses
import enum
import json
import warnings
from collections.abc import (
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple, NewType, TypeVar
from uuid import UUID, uuid4

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    computed_field,
)
from typing_extensions import TypedDict

from jobs.errors import InvalidArguments, InvalidJson, UnsupportedAnnotation
from jobs.registry import Task
from jobs.signature import Signature, join

NAN = float("nan")
MARKER = object()
DAYS: list[int] = []
DAY = date(2024, 1, 1)


class Color(enum.Enum):
    RED = "red"
    TWO = 2


class Shape(enum.StrEnum):
    ROUND = "round"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


class Item(BaseModel):
    name: str
    when: datetime | None = None
    price: Decimal = Decimal("0.10")
    tag: UUID = Field(default_factory=uuid4)


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int = Field(validation_alias="in", serialization_alias="out")

    @computed_field
    def twice(self) -> int:
        return 2 * self.a


class Row(TypedDict, total=False):
    id: int
    day: date


class Pair(NamedTuple):
    left: int
    right: str


UserId = NewType("UserId", int)
T = TypeVar("T")


def signature(fn: Callable[..., Any]) -> Signature:
    return Signature(fn, "the.task")


def of(annotation: Any, returns: Any = None) -> Signature:
    """The signature of a task with one parameter `x`."""

    def task(x): ...  # type: ignore[no-untyped-def]

    task.__annotations__ = {"x": annotation, "return": returns}
    return signature(task)


def bind(made: Signature, *args: Any, **kwargs: Any) -> Any:
    return json.loads(made.bind(args, kwargs))


def crossed(made: Signature, value: Any) -> Any:
    return made.load(made.bind((value,), {}))["x"]


def refused(call: Callable[..., Any], *args: Any) -> dict[str, str]:
    with pytest.raises(InvalidArguments) as caught:
        call(*args)
    return dict(caught.value.problems)


# Binding ---------------------------------------------------------------------------------------


def test_arguments_are_kept_by_name_however_they_were_given() -> None:
    def task(a: int, b: str, c: float = 1.5) -> None: ...

    made = signature(task)
    assert bind(made, 1, "x") == {"a": 1, "b": "x"}
    assert bind(made, 1, b="x") == {"a": 1, "b": "x"}
    assert bind(made, c=2, b="x", a=1) == {"a": 1, "b": "x", "c": 2.0}


def test_what_is_not_given_stays_absent_and_the_functions_default_applies() -> None:
    def task(a: int, b: Any = MARKER) -> Any:
        return b

    made = signature(task)
    assert bind(made, 1) == {"a": 1}
    assert made.invoke(made.load('{"a":1}')) is MARKER


def test_a_wrong_call_names_each_parameter() -> None:
    def task(a: int, b: int, /, c: int, *, d: int) -> None: ...

    made = signature(task)
    assert refused(bind, made) == dict.fromkeys(["/a", "/b", "/c", "/d"], "is missing")
    assert "takes 3 positional" in refused(made.bind, (1, 2, 3, 4), {"d": 1})[""]
    assert "twice" in refused(made.bind, (1, 2, 3), {"c": 1, "d": 1})["/c"]
    assert "positional-only" in refused(made.bind, (1,), {"b": 1, "c": 1, "d": 1})["/b"]
    assert refused(made.bind, (1, 2, 3), {"d": 1, "e~/": 1}) == {"/e~0~1": "is not expected"}


def test_positional_only_and_keyword_only_parameters_are_called_rightly() -> None:
    def task(a: int = 1, b: int = 2, /, c: int = 3, *, d: int = 4) -> tuple[int, ...]:
        return a, b, c, d

    made = signature(task)
    assert made.invoke({}) == (1, 2, 3, 4)
    assert made.invoke({"b": 5, "d": 6}) == (1, 5, 3, 6)
    assert made.invoke(made.load(made.accept('{"b": 5}', 100))) == (1, 5, 3, 4)


def test_parameters_may_have_any_name() -> None:
    def task(
        _x: int, json: str, model_config: int, copy: int, schema: int, self: int, __y: int
    ) -> Any:
        return [_x, json, model_config, copy, schema, self, __y]

    made = signature(task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = made.bind((1, "j", 2, 3, 4, 5, 6), {})
    assert list(json.loads(text)) == ["_x", "json", "model_config", "copy", "schema", "self", "__y"]
    assert made.invoke(made.load(text)) == [1, "j", 2, 3, 4, 5, 6]


def test_python_values_are_read_leniently_and_json_strictly() -> None:
    made = of(int)
    assert bind(made, "5") == {"x": 5}
    assert "/x" in refused(made.accept, '{"x": "5"}', 100)
    assert "/x" in refused(made.accept, '{"x": true}', 100)
    assert made.accept('{"x": 5.0}', 100) == '{"x":5}'
    assert "/x" in refused(made.accept, '{"x": 5.5}', 100)


def test_a_missing_annotation_counts_as_any() -> None:
    def task(x): ...  # type: ignore[no-untyped-def]

    made = signature(task)
    for value in (None, 1, "a", [1, {"a": [None]}], {"k": 1.5}):
        assert crossed(made, value) == value
    assert crossed(made, (1, (2,))) == [1, [2]]


@pytest.mark.parametrize(
    "value", [datetime.now(UTC), {1, 2}, Decimal(1), Point(1), {1: 2}, uuid4()]
)
def test_what_would_arrive_as_something_else_is_refused(value: Any) -> None:
    shapes = [(Any, value), (dict[str, Any], {"k": value}), (list, [value])]
    for annotation, given_value in shapes:
        why = refused(of(annotation).bind, (given_value,), {})["/x"]
        assert "annotate the parameter" in why


def test_a_member_of_a_union_arrives_as_itself_or_is_refused() -> None:
    made = of(datetime | str)
    assert crossed(made, "word") == "word"
    now = datetime.now(UTC)
    assert crossed(made, now) == now
    assert "/x" in refused(made.bind, ("2024-01-01T00:00:00Z",), {})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (datetime, datetime(2024, 2, 3, 4, 5, 6, 789, tzinfo=UTC)),
        (datetime, datetime(2024, 2, 3)),  # noqa: DTZ001
        (date, date(2024, 2, 3)),
        (time, time(1, 2, 3, 4)),
        (timedelta, timedelta(days=-1, microseconds=5)),
        (UUID, uuid4()),
        (Decimal, Decimal("12345678901234567890.10")),
        (Color, Color.TWO),
        (Shape, Shape.ROUND),
        (Point, Point(1, 2.5)),
        (Item, Item(name="é", when=datetime.now(UTC))),
        (list[Item], [Item(name="a"), Item(name="b")]),
        (tuple[int, Color], (1, Color.RED)),
        (tuple[Point, ...], (Point(1), Point(2))),
        (set[date], {date(2024, 1, 1)}),
        (frozenset[int], frozenset({1, 2})),
        (dict[int, Decimal], {1: Decimal("1.0")}),
        (dict[UUID, list[Point]], {uuid4(): [Point(3)]}),
        (Row, {"id": 1, "day": date(2024, 1, 1)}),
        (Pair, Pair(1, "r")),
        (bytes, b"\x00\xff\xfe"),
        (list[bytes], [b"\xff"]),
        (Path, Path("/tmp/ä")),
        (int, 2**80),
        (float, 0.1),
        (UserId, UserId(7)),
        (int | None, None),
        (Point | None, Point(1)),
        (Literal["a", 1], 1),
        (Annotated[int, Field(ge=1)], 1),
        (Aliased, Aliased(**{"in": 3})),
        (Sequence[int], [1]),
        (Mapping[str, int], {"a": 1}),
    ],
)
def test_values_arrive_in_their_types(annotation: Any, value: Any) -> None:
    arrived = crossed(of(annotation), value)
    assert arrived == value
    assert type(arrived) is type(value)


@given(
    when=st.datetimes(timezones=st.just(UTC)),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    rest=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        st.sets(st.integers()) | st.none(),
        max_size=4,
    ),
    number=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_values_arrive_as_they_are(
    when: datetime, amount: Decimal, rest: Any, number: float
) -> None:
    def task(
        when: datetime, amount: Decimal, rest: dict[str, set[int] | None], number: float
    ) -> None: ...

    made = signature(task)
    arrived = made.load(made.bind((when, amount, rest, number), {}))
    assert arrived == {"when": when, "amount": amount, "rest": rest, "number": number}


def test_a_models_defaults_are_decided_where_it_is_made() -> None:
    item = Item(name="a")
    assert crossed(of(Item), item).tag == item.tag


def test_constraints_hold_at_submit() -> None:
    made = of(Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=2)])
    assert "/x/1" in refused(made.bind, ([1, 0],), {})
    assert "/x" in refused(made.accept, '{"x": [1, 2, 3]}', 1000)


@pytest.mark.parametrize(
    ("annotation", "value", "pointer", "word"),
    [
        (float, NAN, "/x", "NaN"),
        (float, float("-inf"), "/x", "NaN"),
        (list[float], [1, NAN], "/x/1", "NaN"),
        (Point, Point(1, NAN), "/x/y", "NaN"),
        (Any, {"a": [NAN]}, "/x/a/0", "NaN"),
        (list[Point | None], [None, Point(1, NAN)], "/x/1/y", "NaN"),
        (str, "a\0", "/x", "NUL"),
        (dict[str, list[str]], {"a/b": ["\0"]}, "/x/a~1b/0", "NUL"),
        (Any, ["\ud800"], "/x/0", "surrogate"),
        (str, "\ud800", "/x", "surrogate"),
        (Any, object(), "/x", "not JSON"),
    ],
)
def test_what_json_cannot_hold_is_pointed_at(
    annotation: Any, value: Any, pointer: str, word: str
) -> None:
    assert word in refused(of(annotation).bind, (value,), {})[pointer]


def test_what_nests_for_ever_or_too_deep_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    for value in (circle, deep):
        assert refused(of(Any).bind, (value,), {})


def test_what_clients_send_has_a_size_limit() -> None:
    made = of(str)
    assert "at most 20" in refused(made.accept, json.dumps({"x": "y" * 20}), 20)[""]


# Accepting -------------------------------------------------------------------------------------


def test_clients_may_send_an_object_or_an_array() -> None:
    def task(a: int, b: date, *, c: str = "") -> None: ...

    made = signature(task)
    assert made.accept(b'{"b": "2024-01-02", "a": 1}', 100) == '{"a":1,"b":"2024-01-02"}'
    assert made.accept(b' [1, "2024-01-02"]', 100) == '{"a":1,"b":"2024-01-02"}'
    assert set(refused(made.accept, '["x", "y"]', 100)) == {"/0", "/1"}
    assert set(refused(made.accept, "[1]", 100)) == {"/1"}
    assert set(refused(made.accept, '[1, "2024-01-02", "c", 4]', 100)) == {"/2", "/3"}
    assert set(refused(made.accept, '"a"', 100)) == {""}


def test_each_error_has_a_pointer_into_what_was_sent() -> None:
    def task(points: list[Point], by: dict[str, int], u: int | Point = 1) -> None: ...

    raw = '{"points": [{"x": 1}, {"x": "a"}, {}], "by": {"a/b~": "x"}, "u": {"x": []}, "no": 1}'
    found = refused(signature(task).accept, raw, 1000)
    assert set(found) == {"/points/1/x", "/points/2/x", "/by/a~1b~0", "/u", "/u/x", "/no"}
    assert found["/points/2/x"] == "is missing"


def test_the_number_of_errors_is_limited() -> None:
    assert len(refused(of(list[int]).accept, json.dumps({"x": ["a"] * 5000}), 100_000)) == 100


def test_clients_send_aliases_and_models_still_arrive() -> None:
    made = of(Aliased)
    assert made.load(made.accept('{"x": {"in": 3}}', 100)) == {"x": Aliased(**{"in": 3})}


@pytest.mark.parametrize(
    "raw", ["{", '{"x": NaN}', '{"x": "\\ud800"}', '{"x": "\\u0000"}', "[" * 2000]
)
def test_what_is_no_json_is_told_apart(raw: str) -> None:
    with pytest.raises(InvalidJson):
        of(Any).accept(raw, 10_000)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "d", "e"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.sampled_from(["", "red", "x"])
        | st.lists(st.integers() | st.just(""), max_size=2)
        | st.dictionaries(
            st.sampled_from(["x", "y", "z"]), st.integers() | st.floats(-5, 5), max_size=2
        ),
    )
)
def test_what_the_schema_admits_is_accepted_and_nothing_else(document: dict[str, Any]) -> None:
    def task(
        a: int, b: str = "", c: Color | None = None, d: list[int] = DAYS, e: Point | float = 1.0
    ) -> None: ...

    made = signature(task)
    admitted = jsonschema.Draft202012Validator(made.arguments.json_schema()).is_valid(document)
    try:
        made.accept(json.dumps(document), 10_000)
    except InvalidArguments:
        assert not admitted
    else:
        assert admitted


# Results ---------------------------------------------------------------------------------------


def test_a_result_is_written_by_the_return_annotation() -> None:
    made = of(int, returns=dict[str, Item])
    item = Item(name="a", price=Decimal("1.20"))
    text = made.dump({"k": item}, 1000)
    assert json.loads(text)["k"]["price"] == "1.20"
    assert made.load_result(text) == {"k": item}
    assert of(int, returns=Decimal).dump(Decimal("1.0"), None) == '"1.0"'
    assert json.loads(of(int, returns=Aliased).dump(Aliased(**{"in": 3}), None)) == {
        "out": 3,
        "twice": 6,
    }


def test_none_is_null_and_anything_goes_without_an_annotation() -> None:
    def task(): ...  # type: ignore[no-untyped-def]

    made = signature(task)
    assert made.dump(None, None) == "null"
    assert json.loads(made.dump([Point(1), {1}, Color.RED], None)) == [
        {"x": 1, "y": 0.5},
        [1],
        "red",
    ]
    assert of(int).dump(None, None) == "null"


@pytest.mark.parametrize(
    ("returns", "value"),
    [
        (int, "x"),
        (Item, {"name": 1}),
        (list[int], ["a"]),
        (datetime, "2024-01-01"),
        (Any, object()),
    ],
)
def test_a_result_that_does_not_fit_names_the_annotation(returns: Any, value: Any) -> None:
    with pytest.raises(InvalidJson, match=r"does not fit the return annotation of the\.task"):
        of(int, returns=returns).dump(value, None)


@pytest.mark.parametrize(
    ("returns", "value", "pointer"),
    [
        (float, NAN, ""),
        (Any, {"a": NAN}, "/a"),
        (Point, Point(1, NAN), "/y"),
        (Any, [Point(1, NAN)], "/0/y"),
        (str, "\0", ""),
        (Any, ["\ud800"], "/0"),
    ],
)
def test_results_pass_the_same_gate(returns: Any, value: Any, pointer: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        of(int, returns=returns).dump(value, None)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_results_have_a_size_limit() -> None:
    with pytest.raises(InvalidJson, match="at most 10"):
        of(int, returns=str).dump("x" * 20, 10)


# Annotations -----------------------------------------------------------------------------------


class Handmade:
    pass


class Odd(enum.Enum):
    PAIR = (1, 2)


class Hidden(BaseModel):
    inner: dict[str, list[SecretStr]]


@dataclasses.dataclass
class Holder:
    hidden: Hidden | None


class Word(str):
    """Pydantic does not know it."""


@pytest.mark.parametrize(
    "annotation",
    [
        Handmade,
        list[Handmade],
        Callable[[], int],
        Iterator[int],
        Iterable[int],
        Generator[int, None, None],
        IO[str],
        type[int],
        Odd,
        Literal[Color.RED],
        AsyncIterator[int],
        Word,
        5,
        asyncio.Queue,
    ],
)
def test_an_unsupported_annotation_names_task_and_parameter(annotation: Any) -> None:
    with pytest.raises(UnsupportedAnnotation, match=r"task the\.task: parameter 'x'"):
        of(annotation)


@pytest.mark.parametrize("annotation", [Handmade, Callable[[], int], SecretStr, Holder])
def test_an_unsupported_return_annotation_is_named(annotation: Any) -> None:
    with pytest.raises(UnsupportedAnnotation, match=r"task the\.task: the return annotation"):
        of(int, returns=annotation)


@dataclasses.dataclass
class Account:
    name: str
    pins: tuple[Secret[int], ...]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (SecretStr, SecretStr("hush")),
        (SecretBytes, SecretBytes(b"\xff\x00hush")),
        (Secret[int], Secret[int](5)),
        (list[SecretStr] | None, [SecretStr("a"), SecretStr("b")]),
        (list[SecretStr] | None, None),
        (Holder, Holder(Hidden(inner={"a": [SecretStr("hush")]}))),
        (Account, Account("ann", (Secret[int](1234),))),
        (dict[str, SecretStr], {"a/b": SecretStr('"quoted"\n')}),
    ],
)
def test_secret_arguments_are_kept_apart_and_arrive(annotation: Any, value: Any) -> None:
    def task(a, x, b=1): ...  # type: ignore[no-untyped-def]

    task.__annotations__ = {"a": str, "x": annotation, "b": int}
    made = signature(task)
    text = made.bind(("readable", value), {})
    readable, hidden = made.split(text)
    assert json.loads(readable) == {"a": "readable"}
    assert hidden is not None
    assert "\n" not in hidden
    assert made.load(join(readable, hidden)) == {"a": "readable", "x": value}
    assert made.split(made.accept(text, None)) == (readable, hidden)
    assert made.needs_secrets


def test_without_a_secret_nothing_is_kept_apart() -> None:
    default = SecretStr("default")

    def task(a: int, x: SecretStr = default) -> None: ...

    made = signature(task)
    assert made.split(made.bind((1,), {})) == ('{"a":1}', None)
    assert not made.needs_secrets
    assert "default" not in json.dumps(made.arguments.json_schema())
    assert join("{}", '{"x":"a"}') == '{"x":"a"}'


def test_the_schema_of_a_secret_is_that_of_a_password() -> None:
    described = of(SecretStr).arguments.json_schema()["properties"]["x"]
    assert (described["format"], described["writeOnly"]) == ("password", True)


def test_any_number_of_arguments_is_refused() -> None:
    def many(*rest: int) -> None: ...
    def named(**rest: int) -> None: ...

    for fn in (many, named):
        with pytest.raises(UnsupportedAnnotation, match=r"\*rest.*a list or a dict"):
            signature(fn)


def test_string_annotations_resolve_in_the_functions_module() -> None:
    def task(a: "Later", b: "list[Later]", c: list["Later"]) -> "Later | None": ...

    made = signature(task)
    assert crossed_as(made, Later(n=1)) == {"a": Later(n=1), "b": [Later(n=1)], "c": [Later(n=1)]}
    assert made.dump(Later(n=2), None) == '{"n":2}'


def crossed_as(made: Signature, later: "Later") -> Any:
    return made.load(made.bind((later, [later], [later]), {}))


class Later(BaseModel):
    n: int


def test_a_name_that_does_not_resolve_is_named() -> None:
    def task(a: int, b: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UnsupportedAnnotation, match=r"parameter 'b'.*Missing.*not defined"):
        signature(task)


def test_annotations_resolve_late() -> None:
    made = Task(annotated_with_a_later_name)
    with pytest.raises(UnsupportedAnnotation):
        made.resolve()


def annotated_with_a_later_name(x: "NotYet") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def test_schemas_have_a_component_for_each_task_with_defaults() -> None:
    def one(a: int, b: Color = Color.RED, c: Point | None = None, d: Any = MARKER) -> None: ...
    def two(a: date = DAY) -> None: ...

    first, second = Signature(one, "text.stats"), Signature(two, "text.other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, shared = TypeAdapter.json_schemas(
            [("1", "validation", first.arguments), ("2", "validation", second.arguments)]
        )
    schema = shared["$defs"]["text_stats_Arguments"]
    assert schema["required"] == ["a"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["b"]["default"] == "red"
    assert schema["properties"]["c"]["default"] is None
    assert "default" not in schema["properties"]["d"]
    other = shared["$defs"]["text_other_Arguments"]
    assert other["properties"]["a"]["default"] == "2024-01-01"


def test_a_type_written_with_its_own_serializer_crosses_if_it_reads_back() -> None:
    made = of(Annotated[date, PlainSerializer(lambda day: day.isoformat())])
    assert crossed(made, date(2024, 1, 2)) == date(2024, 1, 2)
