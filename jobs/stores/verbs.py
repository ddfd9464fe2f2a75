"""What a write is to the queue that gathers writes: a verb, a request for it, and what came of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jobs.protocols import Wake

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[P, R]):
    """One kind of write. `apply`, which is given its store's kind of transaction, does all of a transaction's
    requests of the kind, and returns one result each, in order; a result that is an exception is raised to
    its caller alone."""

    order: int  #: place within a transaction
    apply: Callable[[Any, Sequence[P]], Sequence[R | Exception]]
    durable: bool = True
    """Whether it must survive a loss of power. What need not costs no sync of the disk of its own."""
    vital: bool = True
    """Whether it may use the ballast. What is not is refused while that is gone."""


@dataclass(slots=True)
class Request:
    """One call of a verb."""

    verb: Verb[Any, Any]
    payload: Any


@dataclass(frozen=True, slots=True)
class Committed:
    """What a batch of requests came to: a result each, and what to ring for."""

    results: Sequence[Any]
    wake: Wake
    failure: Exception | None = None  #: of the disk, after the commit
