"""A lane's child process: what it is told, how it settles in, and how it runs a batch."""

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from . import current, processes, wire
from .channel import INTERRUPT_SIGNAL, Channel
from .hygiene import Habitat
from .lane_client import LaneSubmitter
from .model import JobId
from .output import Output, log_to_stderr
from .protocols import Interrupt
from .registry import Registry, default_registry
from .runner import Runner
from .sealing import Sealer
from .upkeep import Upkeep
from .usage import Meter

FORKSERVER_REQUEST = "JOBS_FORKSERVER"
"""Environment of the forkserver: JSON of `path` (sys.path), `app` and `modules`, for `jobs.guardian`."""

LOST = 79
"""Exit code of a child that cannot say any more what becomes of its jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What a child process needs to know.

    `app` is an import string (`module:app` or `module:factory()`), `modules` those that register tasks,
    `keys` open request snapshots, `nice` is the niceness; `hold` is a descriptor of the service whose
    lock is to last as long as any child does. A child is replaced after `recycle_after_jobs`, and when it
    has grown by `recycle_after_bytes`; 0: never.
    """

    app: str | None = None
    modules: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=(), repr=False)
    max_result_bytes: int = 8_388_608
    max_args_bytes: int = 262_144
    nice: int = 0
    recycle_after_jobs: int = 0
    recycle_after_bytes: int = 0
    hold: int | None = None


class _Child:
    """The one lane that this process is."""

    def __init__(
        self, boot: Boot, side: Connection, held: Connection | None, output: Output | None
    ) -> None:
        self.boot, self.side, self.held, self.output = boot, side, held, output
        self.meter = Meter()
        self.runner: Runner | None = None
        self.upkeep: Upkeep | None = None
        self.channel = Channel(
            side.fileno(),
            wire.frame_limit(boot.max_result_bytes),
            interrupt=self._interrupt,
            deliver=self._deliver,
        )

    def _interrupt(self, job_id: JobId, why: Interrupt) -> None:
        if self.runner is not None:
            self.runner.interrupt(job_id, why)

    def _deliver(self) -> None:
        if self.runner is not None:
            self.runner.deliver()


_child: _Child | None = None


def enter(
    boot: Boot,
    side: Connection,
    held: Connection | None,
    out: tuple[Connection, bytes] | None,
) -> None:
    """The executor's initializer. It must not raise (the pool would be broken without a word): what may
    fail for the user's doing is in `prepare`.

    `out` is the pipe for what jobs write, and the mark that separates them; None: that goes where the
    service's output does."""
    global _child  # noqa: PLW0603 - one lane a process
    with contextlib.suppress(PermissionError):  # already a group's leader
        os.setsid()
    current.become_child()
    processes.become_subreaper()
    parent = os.getppid()
    processes.signal_at_parents_end(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    processes.be_nice(boot.nice)
    with contextlib.suppress(OSError):  # if memory runs out, the job has to go, not the service
        Path("/proc/self/oom_score_adj").write_text("1000")
    output = None
    if out is not None:
        output = Output(os.dup(out[0].fileno()), out[1])
        out[0].close()
        output.take_over()
    _child = _Child(boot, side, held, output)
    signal.signal(INTERRUPT_SIGNAL, _child.channel.on_signal)
    os.register_at_fork(after_in_child=_leave_to_parent)


def _leave_to_parent() -> None:
    """In a process that a job has forked: the lane is not its own."""
    assert _child is not None
    _child.side.close()
    if _child.held is not None:
        _child.held.close()
    if _child.output is not None:
        _child.output.close()


def whoami() -> tuple[int, int]:
    """The first call: this process and its parent."""
    return os.getpid(), os.getppid()


def prepare() -> bytes:
    """The second call: import the app and the tasks. Returns JSON: `error` (why that failed, or null),
    `guarded` (whether the forkserver will see to our end) and `note` (for the log, or null)."""
    assert _child is not None
    error = None
    try:
        _child.runner = _runner(_child)
    except BaseException as raised:  # noqa: BLE001 - SystemExit too; the service reports it
        error = _explain(raised)
    _keep_descriptors_from_programs()
    _child.meter = Meter()
    gc.freeze()  # what is here now stays: no collection need look at it
    if _child.runner is not None:
        _child.upkeep = Upkeep(
            Habitat(_child.runner.kept_loop),
            jobs=_child.boot.recycle_after_jobs,
            grown=_child.boot.recycle_after_bytes,
        )
    guardian = sys.modules.get("jobs.guardian")
    guarded = guardian is not None and guardian.guarding == os.getppid()
    note = guardian.left_to_children if guardian is not None and guarded else None
    return json.dumps({"error": error, "guarded": guarded, "note": note}).encode()


def _runner(child: _Child) -> Runner:
    boot = child.boot
    app = import_all(boot.app, boot.modules)
    registry: Registry = default_registry
    carriers: Mapping[str, Any] = {}
    if app is not None:
        jobs = app.extensions["jobs"]
        registry, carriers = jobs.registry, jobs.carriers
    if child.output is not None:
        log_to_stderr()
    sealer = Sealer(boot.keys)
    runner = Runner(app, registry, sealer, carriers, max_result_bytes=boot.max_result_bytes)
    runner.told = child.channel.progress
    current.install(LaneSubmitter(child.channel, runner, sealer, boot.max_args_bytes))
    return runner


_made: dict[str, Any] = {}
"""Apps by import string. What the forkserver has made, its children share."""


def import_all(app: str | None, modules: Sequence[str]) -> Any:
    """Import the app and the modules that register tasks; returns the app."""
    if app is not None and app not in _made:
        _made[app] = _import_app(app)
    for name in modules:
        importlib.import_module(name)
    return _made.get(app) if app else None


def _import_app(string: str) -> Any:
    """The app that `module:attribute` or `module:factory()` names."""
    module, _, path = string.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.removesuffix("()").split("."):
        found = getattr(found, name)
    return found() if path.endswith("()") else found


def _explain(error: BaseException) -> str:
    """The exception, and where in the user's code it arose."""
    own = os.path.dirname(__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((own, "<frozen", os.path.dirname(importlib.__file__)))
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _keep_descriptors_from_programs() -> None:
    """What was handed to us must not be handed on to the programs that jobs start: a lock held by one of
    them would outlive us."""
    if processes.LINUX:
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                with contextlib.suppress(OSError):  # the listing's own
                    os.set_inheritable(int(name), False)


def run_batch(payload: bytes) -> None:
    """Run the invocations of a batch, one after another, and report on the channel."""
    assert _child is not None
    assert _child.runner is not None
    assert _child.upkeep is not None
    channel, runner, upkeep = _child.channel, _child.runner, _child.upkeep
    meter, output = _child.meter, _child.output
    try:
        for serial, invocation in wire.unpack_batch(payload):
            # Before the service hears that it has begun: it may be interrupted at once.
            runner.expect(invocation)
            if not channel.begin(serial, invocation.job_id):
                runner.forget(invocation)
                continue
            began = time.perf_counter()
            outcome = runner.run(invocation)
            took = time.perf_counter() - began
            processes.kill_children()
            _flush()
            marked = output is not None and output.mark(channel)
            channel.end(outcome, took, meter.lap(took), marked=marked)
            retirement = upkeep.after(invocation, outcome, took, runner.keeps(invocation.task))
            if retirement is not None:
                channel.retire(json.dumps(asdict(retirement)).encode())
                os._exit(0)
        channel.flush()
    except BaseException:  # noqa: BLE001 - the lane is of no use any more; the service replaces it
        try:
            traceback.print_exc()
        finally:
            os._exit(LOST)


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: BLE001, S110 - a job may have replaced or closed them
        pass
