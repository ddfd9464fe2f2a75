"""`python -m tests.chaos --seconds 60`: random faults for a while, and the verdict."""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.apps import sabotage
from tests.apps.sabotage import SABOTAGE, WAYS

from .run import SETUPS, Settings, run


def main() -> int:
    """The exit code: 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, help="of clients and faults (default: a new one)")
    parser.add_argument(
        "--on",
        choices=SETUPS,
        default="sqlite",
        help="sqlite: one machine; postgres: three hosts; celery: three hosts, and Celery's workers",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes beside the service on one machine"
    )
    parser.add_argument(
        "--sabotage", choices=WAYS, help="break a promise, to see that the verdict notices"
    )
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    again = (
        f"python -m tests.chaos --on {given.on} --seconds {given.seconds:g} --seed {seed}"
        f" --workers {given.workers}"
    )
    settings = Settings(given.seconds, seed, given.on, given.workers)
    if given.sabotage:
        again += f" --sabotage {given.sabotage}"
        settings = settings._replace(more=[sabotage.__name__], env={SABOTAGE: given.sabotage})
    print(f"again    {again}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    verdict = run(folder, settings)
    print(verdict)
    if verdict.good:
        shutil.rmtree(folder)
        return 0
    print(f"kept     {folder}: jobs.db, history.jsonl, effects.log, output.log")
    return 1


if __name__ == "__main__":
    sys.exit(main())
