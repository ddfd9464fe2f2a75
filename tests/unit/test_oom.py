"""How an OOM kill is told from any other SIGKILL: by the kernel's counters."""

from pathlib import Path
from time import monotonic

import pytest

from jobs.engines.oom import OomWatch, counters


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    for folder in ("proc/self", "cgroup/memory/our", "cgroup/our"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("pgpgin 5\noom_kill 7\n")
    return tmp_path


def watch(machine: Path) -> OomWatch:
    return OomWatch(counters(machine / "proc", machine / "cgroup"))


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        ("0::/our\n", "cgroup/our/memory.events"),
        ("4:memory:/our\n1:cpu:/\n0::/\n", "cgroup/memory/our/memory.oom_control"),
        ("4:memory:/docker/123\n", "cgroup/memory/memory.oom_control"),
        ("0::/elsewhere\n", "cgroup/memory.events"),
        ("0::/\n", "proc/vmstat"),
    ],
)
def test_a_kill_is_read_where_it_is_counted_for_this_process(
    machine: Path, membership: str, file: str
) -> None:
    (machine / "proc/self/cgroup").write_text(membership)
    (machine / file).write_text("low 0\noom 9\noom_kill 3\noom_group_kill 0\n")
    watched, before = watch(machine), monotonic()
    assert not watched.struck_since(before)
    (machine / file).write_text("low 0\noom 9\noom_kill 4\noom_group_kill 0\n")
    assert watched.struck_since(before)
    assert not watched.struck_since(monotonic())


def test_a_kill_before_the_job_began_is_no_evidence(machine: Path) -> None:
    watched = watch(machine)
    (machine / "proc/vmstat").write_text("oom_kill 8\n")
    watched.look()
    assert not watched.struck_since(monotonic())


def test_where_nothing_counts_nothing_is_said(tmp_path: Path) -> None:
    assert not watch(tmp_path).struck_since(0)
