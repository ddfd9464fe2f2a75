"""`csv.stats`: summary statistics of a table."""

import csv
import statistics
from collections import Counter
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from jobs import task


@dataclass
class Numbers:
    minimum: float
    maximum: float
    mean: float
    median: float
    deviation: float


@dataclass
class Column:
    """`numbers` if every value is a number, else `most_common`."""

    name: str
    values: int
    missing: int
    distinct: int
    numbers: Numbers | None
    most_common: str | None


@dataclass
class TableStats:
    rows: int
    columns: list[Column]


@task(name="csv.stats")
def stats(text: str, delimiter: Literal[",", ";", "\t", "|"] = ",") -> TableStats:
    """Summarise each column of a CSV text whose first line names the columns."""
    header, *rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row] or [
        []
    ]
    if not header:
        raise ValueError("the table is empty: its first line must name the columns")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} values, the header has {len(header)}")
    cells = list(zip(*rows, strict=True)) if rows else [() for _ in header]
    return TableStats(
        rows=len(rows),
        columns=[_column(name.strip(), column) for name, column in zip(header, cells, strict=True)],
    )


def _column(name: str, cells: tuple[str, ...]) -> Column:
    values = [cell.strip() for cell in cells if cell.strip()]
    numbers = _numbers(values)
    return Column(
        name=name,
        values=len(values),
        missing=len(cells) - len(values),
        distinct=len(set(values)),
        numbers=numbers,
        most_common=Counter(values).most_common(1)[0][0] if values and not numbers else None,
    )


def _numbers(values: list[str]) -> Numbers | None:
    try:
        floats = [float(value) for value in values]
    except ValueError:
        return None
    if not floats or not all(isfinite(value) for value in floats):
        return None
    return Numbers(
        minimum=min(floats),
        maximum=max(floats),
        mean=round(statistics.fmean(floats), 6),
        median=statistics.median(floats),
        deviation=round(statistics.stdev(floats), 6) if len(floats) > 1 else 0.0,
    )
