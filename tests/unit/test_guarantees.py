"""The page on guarantees names tests that exist, and leaves no fault out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/guarantees.md"

FAULTS = set(range(1, 45))
ELSEWHERE = {23, 24, 25, 26, 40}  #: faults of parts that this page does not speak of
PROMISES = {str(number) for number in range(1, 9)}


def rows(header: str) -> list[list[str]]:
    """The cells of the table that has this first column."""
    _, _, after = PAGE.read_text().partition(f"| {header} |")
    table = after.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def numbers(cell: str) -> set[int]:
    """Of `7`, `5, 6` or `1–8`."""
    found: set[int] = set()
    for part in cell.split(","):
        first, _, last = part.strip().partition("–")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def existing_tests() -> set[str]:
    sources = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in sources for name in re.findall(r"def (test_\w+)\(", text)}


@pytest.mark.parametrize("header", ["promise", "#"])
def test_every_test_that_is_named_exists(header: str) -> None:
    existing = existing_tests()
    for row in rows(header):
        named = re.findall(r"`(\w+)`", row[-1])
        assert named, f"{row[0]}: no test"
        assert set(named) <= existing, f"{row[0]}: {set(named) - existing}"


@pytest.mark.parametrize("page", ["scale-out", "celery"])
def test_the_tests_that_a_page_on_scaling_out_names_exist(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / f"docs/howto/{page}.md").read_text()))
    assert named
    assert named <= existing_tests()


def test_every_promise_has_a_test_and_a_paragraph() -> None:
    assert {row[0] for row in rows("promise")} == PROMISES
    assert set(re.findall(r"^\*\*(\d)\. ", PAGE.read_text(), re.MULTILINE)) == PROMISES


def test_every_fault_is_on_the_page() -> None:
    claimed = set().union(*(numbers(row[0]) for row in rows("#")))
    assert claimed >= FAULTS - ELSEWHERE
    assert not claimed & ELSEWHERE
