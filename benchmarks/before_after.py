"""What a change costs a job that does nothing: stored no-op jobs a second, of an earlier revision and of
this one, in turn.

    python -m benchmarks.before_after REVISION
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import ROOT, folder, report, verdict

TURNS = 5
JOBS = 20_000


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The tree of a revision, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        tree = Path(name) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def rate(tree: Path) -> float:
    """Jobs a second, by the code of that tree, in a process of its own."""
    code = "from benchmarks.before_after import drained; drained()"
    environment = os.environ | {"PYTHONPATH": str(tree)}
    if not (tree / "benchmarks/before_after.py").exists():
        (tree / "benchmarks/before_after.py").write_text(Path(__file__).read_text())
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=environment, check=True, capture_output=True
    )
    return float(said.stdout.split()[-1])


def drained() -> None:
    from benchmarks.drain import our_drain

    with folder() as where:
        print(asyncio.run(our_drain(where / "jobs.db", JOBS)))


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    before, after = [], []
    with checked_out(sys.argv[1]) as tree:
        for _ in range(TURNS):
            before.append(rate(tree))
            after.append(rate(ROOT))
    report(f"{JOBS} stored no-op jobs, {sys.argv[1]}", before, "jobs/s")
    report("the same, this revision", after, "jobs/s")
    ratio = statistics.median(b / a for a, b in zip(before, after, strict=True))
    verdict("after / before", ratio, "≥ 0.9")


if __name__ == "__main__":
    main()
