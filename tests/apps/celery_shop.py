"""A Celery app of somebody's, with tasks as Celery's users write them."""

from typing import Any

from celery import Celery
from celery.exceptions import Reject

app = Celery("celery_shop", broker="memory://")


@app.task(name="shop.total")
def total(prices: list[int], tax: float = 0.2) -> float:
    """Typed: so is the API's form of it."""
    return sum(prices) * (1 + tax)


@app.task(name="shop.again", bind=True, max_retries=2, default_retry_delay=0.01)
def again(self: Any, succeed_at: int) -> list[Any]:
    """Tries again by itself."""
    if self.request.retries < succeed_at:
        raise self.retry(exc=ValueError("not yet"))
    return [self.request.id, self.request.retries]


@app.task(name="shop.auto", autoretry_for=(OSError,), default_retry_delay=0.01, max_retries=1)
def auto(path) -> str:  # type: ignore[no-untyped-def]
    """Untyped, and tried again by Celery's decorator."""
    with open(path) as file:
        return file.read()


@app.task(name="shop.refuse")
def refuse() -> None:
    """Not to be tried again."""
    raise Reject("not here", requeue=True)
