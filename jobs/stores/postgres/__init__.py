"""Jobs in a PostgreSQL database, for any number of processes on any number of machines."""

from .store import PostgresStore

__all__ = ["PostgresStore"]
