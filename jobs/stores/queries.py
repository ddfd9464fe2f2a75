"""SQL by name, from a file that can be read, pasted into a shell and explained."""

import re
from pathlib import Path

_BLOCK = re.compile(
    r"^-- (\w+) --\n-- [^\n]+\n(.+?)\s*(?=^-- \w+ --$|\Z)", re.MULTILINE | re.DOTALL
)


def load(path: Path) -> dict[str, str]:
    """The statements of a file of blocks: `-- name --`, one line of comment, the statement.

    Raises ValueError where the file is anything else, or has a name twice."""
    text = path.read_text(encoding="utf-8").lstrip()
    statements: dict[str, str] = {}
    end = 0
    for block in _BLOCK.finditer(text):
        name, statement = block.groups()
        if block.start() != end or name in statements:
            break
        statements[name] = statement
        end = block.end()
    if end != len(text):
        line = text.count("\n", 0, end) + 1
        raise ValueError(f"{path}: expected a block with a name of its own after line {line}")
    return statements


SQL = load(Path(__file__).with_name("sqlite.sql"))
