"""Example tasks doing real work: `quart-jobs serve --tasks examples.tasks`."""

from .mail import welcome
from .primes import count
from .table import stats as table_stats
from .words import stats as text_stats

__all__ = ["count", "table_stats", "text_stats", "welcome"]
