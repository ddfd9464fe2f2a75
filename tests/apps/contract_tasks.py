"""Tasks of many types, each done in a moment, for what tests the API by its published document."""

import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, SecretStr

from jobs import task


class Statistics(BaseModel):
    """What there is in a text."""

    words: int
    longest: str | None


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
    until: date | None = None


@task(name="text.words")
def words(text: str, minimum: Annotated[int, Field(ge=0, le=100)] = 1) -> Statistics:
    """Count the words of a text that have at least so many letters."""
    found = [word for word in text.split() if len(word) >= minimum]
    return Statistics(words=len(found), longest=max(found, key=len, default=None))


@task(name="nothing")
def nothing() -> None:
    pass


@task(name="echo")
def echo(value: Any = None) -> Any:
    return value


@task(name="fail", max_attempts=1)
def fail(message: str) -> None:
    print(message)
    raise ValueError(message)


@task(name="linger")
def linger(*, seconds: Annotated[float, Field(ge=0, le=0.1)]) -> None:
    time.sleep(seconds)


@task(name="log-in")
def log_in(user: str, password: SecretStr) -> bool:
    return user == password.get_secret_value()


@task(name="shop.order")
def order(
    what: Order,
    pen: Pen | None = None,
    moment: datetime | None = None,
    span: timedelta | None = None,
    ident: UUID | None = None,
    amount: Decimal | None = None,
    how: Literal["fast", "slow"] = "slow",
    table: dict[str, int] | None = None,
    pair: tuple[int, str] | None = None,
) -> Order:
    return what
