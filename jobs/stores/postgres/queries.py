"""The SQL of this store, by name."""

from pathlib import Path

from jobs.stores.queries import load

SQL = load(Path(__file__).with_name("postgres.sql"))
