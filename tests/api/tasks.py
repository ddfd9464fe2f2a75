"""Tasks that the API's tests run."""

import asyncio
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from jobs import current_job, task


class Statistics(BaseModel):
    """What there is in a text."""

    words: int
    longest: str | None


@task(name="api.words")
def stats(text: str, minimum: int = 1) -> Statistics:
    """Count the words of a text that have at least so many letters."""
    words = [word for word in text.split() if len(word) >= minimum]
    return Statistics(words=len(words), longest=max(words, key=len, default=None))


@task(name="api.echo")
def echo(value: Any = None) -> Any:
    return value


@task(name="api.fail", max_attempts=1)
def fail(message: str) -> None:
    raise ValueError(message)


@task(name="api.wait")
async def wait() -> None:
    """Run until it is cancelled."""
    await asyncio.Event().wait()


@task(name="api.keyword")
def keyword(*, number: int) -> int:
    return number


class Colour(Enum):
    """What a pen can be."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Pen:
    """Something to write with."""

    colour: Colour
    width: Annotated[float, Field(gt=0, le=10)] = 1.0


class Order(BaseModel):
    """Pens for someone."""

    customer: Annotated[str, Field(min_length=1, max_length=40)]
    pens: Annotated[list[Pen], Field(max_length=3)]


@task(name="api.typed")
def typed(
    whole: Annotated[int, Field(ge=0, le=9)] = 0,
    number: float = 0.5,
    flag: bool = False,
    text: Annotated[str, Field(pattern="^[a-z]*$")] = "",
    maybe: str | None = None,
    moment: datetime | None = None,
    day: date | None = None,
    span: timedelta | None = None,
    ident: UUID | None = None,
    amount: Decimal | None = None,
    one_of: Literal["a", "b"] = "a",
    pen: Pen | None = None,
    order: Order | None = None,
    table: dict[str, int] | None = None,
    pair: tuple[int, str] | None = None,
) -> str:
    return "fits"


@task(name="api.breed")
async def breed(size: int = 1) -> str:
    """Submit another job, and say which."""
    return (await echo.delay("x" * size)).id


@task(name="api.report")
async def report(steps: int, last: str | None = None) -> int:
    """Say how far it is, step by step."""
    for step in range(1, steps + 1):
        current_job.progress(step, steps, last if step == steps else f"step {step}")
    return steps
