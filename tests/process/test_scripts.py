"""Jobs without a server: in scripts, sync and async, whose tasks are in the script itself."""

import subprocess
import sys
from pathlib import Path

import pytest

TASKS = """
from quart import Quart, current_app
from jobs import Jobs, JobFailed, NotRunning, task
from jobs.errors import ConfigurationError

@task
def double(number: int) -> int:
    return 2 * number

@task
def app_name() -> str:
    return current_app.name
"""

SYNC = """
def main() -> None:
    jobs = Jobs(lanes=1)
    with jobs:
        handle = double.delay(21)
        print(handle.state, jobs.run(handle.result(timeout=20)))
    with jobs:
        print(jobs.run(jobs.run(jobs.get(handle.id)).result(timeout=1)))
    try:
        double.delay(1)
    except NotRunning as error:
        print("with jobs:" in str(error))

if __name__ == "__main__":
    main()
"""

ASYNC = """
import asyncio

app = Quart(__name__)
jobs = Jobs()
jobs.init_app(app)
assert app.extensions["jobs"] is jobs

async def main() -> None:
    async with jobs:
        handle = await app_name.delay()
        print(await handle.result(timeout=20))

if __name__ == "__main__":
    asyncio.run(main())
"""

UNGUARDED = """
with Jobs(lanes=1):
    pass
"""

UNREACHABLE = """
def create_app() -> Quart:
    app = Quart(__name__)
    Jobs(app, lanes=1)
    return app

if __name__ == "__main__":
    with create_app().extensions["jobs"]:
        pass
"""


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(TASKS + script)
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=50
    )


@pytest.mark.parametrize(
    ("script", "printed"),
    [(SYNC, ["PENDING 42", "42", "True"]), (ASYNC, ["script"])],
    ids=["sync", "async"],
)
def test_a_script_runs_its_own_tasks_in_child_processes(
    tmp_path: Path, script: str, printed: list[str]
) -> None:
    ended = run(tmp_path, script)
    assert ended.stdout.splitlines() == printed, ended.stderr
    assert ended.stderr == ""
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("script", "said"),
    [(UNREACHABLE, "child="), (UNGUARDED, 'if __name__ == "__main__"')],
    ids=["unreachable app", "unguarded script"],
)
def test_a_script_that_children_cannot_import_is_told_why(
    tmp_path: Path, script: str, said: str
) -> None:
    ended = run(tmp_path, script)
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]
