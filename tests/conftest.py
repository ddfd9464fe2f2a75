"""What every test has: a clean environment, and the skip for programs that a machine may lack."""

import os
import shutil
from collections.abc import Iterator

import hypothesis
import pytest

from jobs import current

# How long an example takes is the machine's business; each test has its time limit.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# A broker of 20 Debian packages, which takes ten seconds to start: only on request.
collect_ignore = [] if "TEST_RABBITMQ" in os.environ else ["process/test_rabbitmq.py"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `debian(program)` where the program is missing."""
    for mark in item.iter_markers("debian"):
        for program in mark.args:
            if shutil.which(program) is None:
                pytest.skip(f"needs the program {program}, which this machine does not have")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("JOBS_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_jobs_are_left_open() -> Iterator[None]:
    """Else the tests that follow would submit to them."""
    yield
    left, current._open[:] = current._open[:], []
    assert left == []
