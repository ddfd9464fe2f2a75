"""Migrates a database one step further than this release does: `migrating_process.py DATABASE [PAUSE]`.

It stops after that many of the step's statements, says so, and goes on when told to."""

import sys
from collections.abc import Iterator
from pathlib import Path

from jobs.stores import migrate

SQL = """
CREATE TABLE further (n INTEGER);
INSERT INTO further SELECT seq FROM jobs;
ALTER TABLE jobs ADD COLUMN further INTEGER;
UPDATE jobs SET further = seq;
"""

_, database, *pause = sys.argv


class Step(migrate.Migration):
    def statements(self) -> Iterator[str]:
        for number, statement in enumerate([*super().statements(), ""]):
            if pause and number == int(pause[0]):
                print("paused", flush=True)
                sys.stdin.readline()
            if statement:
                yield statement


number = len(migrate.migrations()) + 1
known = [*migrate.migrations(), Step(number, f"{number:04}_further", SQL)]
migrate.migrations = lambda: known  # type: ignore[assignment]
print("applied", *migrate.migrate(Path(database), busy_timeout=30.0), flush=True)
