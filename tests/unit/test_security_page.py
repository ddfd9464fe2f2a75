"""The page about security: complete, and true."""

import re
from pathlib import Path

from service.api.blueprint import TABLE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/security.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", sources))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - there == set()
    assert len(named) > 30


def test_the_page_has_every_route_with_its_scope() -> None:
    shown = set(re.findall(r"^\| `(\w+ /\S*)` \| (?:`(\w+)`|none) \|", PAGE, re.MULTILINE))
    assert shown == {(f"{route.method} {route.path}", route.scope or "") for route in TABLE}


def test_the_page_has_all_ten_of_owasp_each_with_a_test() -> None:
    parts = re.split(r"^\*\*API(\d+), ", PAGE.partition("## Known limits")[0], flags=re.MULTILINE)
    numbers, texts = parts[1::2], parts[2::2]
    assert numbers == [str(number) for number in range(1, 11)]
    for text in texts:
        rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
        assert rows
        assert all("`test_" in row for row in rows), text
