"""What passes the gate can be kept by every store; what does not is pointed at."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import InvalidJson
from jobs.strict_json import MAX_DEPTH, check


def problems(raw: bytes | str, where: str = "") -> list[tuple[str, str]]:
    with pytest.raises(InvalidJson) as caught:
        check(raw, max_bytes=100_000, where=where)
    return [(pointer, detail) for pointer, detail in caught.value.problems]


@pytest.mark.parametrize(
    "raw",
    [
        "null",
        "1",
        '"é😀"',
        '{"a": [1, 2.5, -1e-7, true]}',
        '"\\ud83d\\ude00"',
        '"\\\\u0000"',
        "1" * 500,
    ],
)
def test_json_passes_as_text_and_as_bytes(raw: str) -> None:
    check(raw, max_bytes=1000)
    check(raw.encode(), max_bytes=1000)


@pytest.mark.parametrize(
    ("raw", "pointer", "word"),
    [
        ('{"a": [1, "x\\u0000"]}', "/a/1", "NUL"),
        ('{"a/b": {"~": "\\u0000"}}', "/a~1b/~0", "NUL"),
        ('{"a\\u0000": 1}', "/a\0", "NUL"),
        ('{"a": "\\ud800"}', "/a", "surrogate"),
        ('{"a": ["\\udc00x"]}', "/a/0", "surrogate"),
        ('{"a": NaN}', "/a", "NaN"),
        ("[0, -Infinity]", "/1", "infinite"),
        ('{"n": 1e999}', "/n", "too large"),
        ('{"n": ' + "9" * 400 + ".0}", "/n", "too large"),
    ],
)
def test_a_wrong_value_is_pointed_at(raw: str, pointer: str, word: str) -> None:
    [(found, detail)] = problems(raw)
    assert found == pointer
    assert word in detail
    assert problems(raw, "/args") == [(f"/args{pointer}", detail)]


def test_every_wrong_value_is_named() -> None:
    assert [pointer for pointer, _ in problems('["\\u0000", 1, "\\ud800", NaN]')] == [
        "/0",
        "/2",
        "/3",
    ]


@pytest.mark.parametrize(
    "raw", ["", "{", '{"a" 1}', "[1] 2", "'a'", b"\xff", b'"\xff"', '"a\nb"', "\ufeff1"]
)
def test_what_is_no_json_is_refused(raw: str | bytes) -> None:
    assert "is not JSON" in problems(raw)[0][1]


def test_text_that_is_no_text_is_refused() -> None:
    assert "surrogate" in problems('"\ud800"')[0][1]


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_limited(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return opening * depth + "1" + closing * depth

    check(nested(MAX_DEPTH), max_bytes=100_000)
    for depth in (MAX_DEPTH + 1, 2000):
        assert "deeper than 64" in problems(nested(depth))[0][1]


def test_brackets_in_strings_and_side_by_side_do_not_count() -> None:
    check(json.dumps(["[[{{" * 100, '\\"[' * 100, *([[]] * 200)]), max_bytes=100_000)


def test_size_is_limited_in_bytes() -> None:
    check('"é"', max_bytes=4)
    with pytest.raises(InvalidJson, match="at most 3"):
        check('"é"', max_bytes=3)
    check('"é"', max_bytes=None)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(values)
def test_a_document_passes_exactly_if_it_holds_nothing_forbidden(value: Any) -> None:
    raw = json.dumps(value)
    wrong = any(bad in raw for bad in ("NaN", "Infinity")) and not _only_in_text(value)
    wrong = wrong or "\0" in _all_text(value) or _has_surrogate(value)
    try:
        check(raw, max_bytes=None)
    except InvalidJson:
        assert wrong
    else:
        assert not wrong


def _all_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_all_text, value))
    if isinstance(value, dict):
        return "".join(k + _all_text(v) for k, v in value.items())
    return ""


def _only_in_text(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _has_surrogate(value: Any) -> bool:
    try:
        _all_text(value).encode()
    except UnicodeEncodeError:
        return True
    return False
