"""`primes.count`: work for a processor."""

from dataclasses import dataclass
from math import isqrt
from typing import Annotated

from pydantic import Field

from jobs import task


@dataclass
class Primes:
    up_to: int
    count: int
    largest: int | None


@task(name="primes.count")
def count(n: Annotated[int, Field(ge=0, le=200_000_000)]) -> Primes:
    """Count the primes up to n with the sieve of Eratosthenes, one byte for each odd number."""
    if n < 2:
        return Primes(n, 0, None)
    odd = bytearray([1]) * ((n + 1) // 2)  # odd[i] stands for 2 * i + 1; odd[0], for 1, counts as 2
    for i in range(1, (isqrt(n) + 1) // 2):
        if odd[i]:
            step, first = 2 * i + 1, 2 * i * (i + 1)
            odd[first::step] = bytes(len(range(first, len(odd), step)))
    last = odd.rfind(1)
    return Primes(n, odd.count(1), 2 * last + 1 if last else 2)
