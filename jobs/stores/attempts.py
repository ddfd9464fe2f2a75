"""Rows of attempts, from how an attempt ended."""

from collections.abc import Iterable
from typing import Any

from jobs.model import JobState, Outcome

from .commits import Transaction
from .queries import SQL
from .rows import attempt_end


def keep(transaction: Transaction, ended: Iterable[tuple[int, Outcome, str | None]]) -> None:
    """Keep attempts that have ended: of each its job's seq, its outcome, and the error of that as text."""
    plain: list[tuple[Any, ...]] = []
    others: list[tuple[Any, ...]] = []
    worker, now = transaction.claimant, transaction.now
    for seq, outcome, error in ended:
        rss, cpu = outcome.usage or (None, None)
        common = (
            seq,
            outcome.attempt,
            worker,
            outcome.pid,
            outcome.started_at,
            outcome.finished_at or now,
            rss,
            cpu,
        )
        if error is None and outcome.state is JobState.SUCCESS and not outcome.log:
            plain.append(common)
        else:
            log = outcome.log.encode("utf-8", "replace") if outcome.log else None
            others.append((*common, attempt_end(outcome), error, outcome.signal, log))
            transaction.size += len(error or "") + len(log or b"")
    connection = transaction.connection
    if plain:  # by far the most, and half the price
        connection.executemany(SQL["add_success"], plain)
    if others:
        connection.executemany(SQL["add_attempt"], others)
