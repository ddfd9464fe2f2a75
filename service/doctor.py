"""What is right and wrong with this machine, in words, beside what `jobs.stores.checkup` says of the database."""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs import __version__
from jobs.settings import Settings
from jobs.stores import is_postgres, without_driver
from jobs.stores.checkup import examine
from jobs.stores.findings import Finding, Level, ok, problem, warning

_FILES = 1024  #: descriptors that a service with some hundred clients and its lanes may need
_CGROUPS = Path("/sys/fs/cgroup")


def diagnose(settings: Settings) -> Iterator[Finding]:
    """All findings, about the machine and about the database."""
    yield _system()
    yield ok("Python", f"{platform.python_version()}; quart-jobs {__version__}")
    yield _files()
    yield _process_limit()
    yield _child()
    yield from _memory()
    yield from _database(settings)


def _database(settings: Settings) -> Iterator[Finding]:
    if not is_postgres(settings.database):
        yield from examine(settings)
        return
    try:
        from jobs.stores.postgres.checkup import examine as examine_postgres
    except ImportError as error:
        yield problem("database", str(without_driver(error)))
        return
    yield from examine_postgres(settings)


def report(findings: Sequence[Finding]) -> str:
    """A line each, and what to do below it."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:7}  {finding.subject:{width}}  {finding.said}")
        if finding.advice:
            lines.append(f"{'':7}  {'':{width}}  -> {finding.advice}")
    counts = [sum(finding.level is level for finding in findings) for level in Level]
    lines += ["", "{} ok, {} warnings, {} problems".format(*counts)]
    return "\n".join(lines)


def _system() -> Finding:
    name = f"{platform.system()} {platform.release()}"
    if sys.platform != "linux":
        return warning(
            "system",
            name,
            "the guarantees hold on Linux; elsewhere jobs may outlive a killed service",
        )
    if not hasattr(os, "pidfd_open"):
        return warning("system", f"{name}: no pidfd_open", "use Linux 5.3 or later, not a sandbox")
    return ok("system", name)


def _files() -> Finding:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < _FILES:
        return warning(
            "open files",
            f"a process may have {limit} open: with many clients, requests will wait",
            f"raise the limit to {_FILES} or more: ulimit -n, LimitNOFILE= in systemd",
        )
    return ok("open files", f"a process may have {limit}")


def _process_limit() -> Finding:
    """By the control group, of which version 1 and 2 name the same files."""
    for group in _groups():
        try:
            limit, used = (
                (group / name).read_text().strip() for name in ("pids.max", "pids.current")
            )
        except OSError:
            continue
        if limit != "max" and int(limit) - int(used) < 50:
            return warning(
                "process limit",
                f"{used} of {limit} that this control group may have: lanes may fail to start",
                "raise the limit: TasksMax= in systemd, --pids-limit of the container",
            )
        return ok("process limit", f"{used} of {limit}")
    return ok("process limit", "none is set by a control group")


def _groups() -> Iterator[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            yield _CGROUPS / controllers / path.lstrip("/")
            yield _CGROUPS / controllers


def _child() -> Finding:
    began = time.monotonic()
    try:
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return problem(
            "child process", f"none can be started: {error}", "look at memory and the limits above"
        )
    return ok("child process", f"one was started in {1000 * (time.monotonic() - began):.0f} ms")


def _memory() -> Iterator[Finding]:
    policy = _number("/proc/sys/vm/overcommit_memory")
    if policy == 2:
        yield warning(
            "memory",
            "vm.overcommit_memory is 2: processes may fail to start while memory is free",
            "set it to 0, or raise vm.overcommit_ratio",
        )
    elif policy is not None:
        yield ok("memory", f"vm.overcommit_memory is {policy}")
    score = Path("/proc/self/oom_score_adj")
    if score.exists() and not os.access(score, os.W_OK):
        yield warning(
            "out of memory",
            f"{score} is read-only: the kernel may kill the service rather than a job",
            "allow writing to it (a container's /proc may be mounted read-only)",
        )
    elif score.exists():
        yield ok("out of memory", "the kernel can be told to kill jobs before the service")


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
