"""The child's end of its lane's side channel.

The main thread writes what becomes of each job; one thread more reads what the service wants. When the
channel ends, the service is gone (or another program in its place), and so is this process.
"""

import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

from . import processes, wire
from .errors import JobsError
from .model import JobId, JobState, Outcome, Usage, now_ms
from .progress import ProgressNote
from .protocols import Interrupt

INTERRUPT_SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGUSR2)  # RTMIN: nothing else uses it

_PIECE = 1_048_576


class Channel:
    """Frames to and from the service, over the socket `fd`.

    `interrupt(job_id, why)` is called in the reading thread, and then `INTERRUPT_SIGNAL` sent to the
    main one, whose handler has to be `on_signal`; that calls `deliver`, which may raise.
    """

    def __init__(
        self,
        fd: int,
        limit: int,
        *,
        interrupt: Callable[[JobId, Interrupt], None],
        deliver: Callable[[], None],
    ) -> None:
        self._fd, self._limit = fd, limit
        self._interrupt, self._deliver = interrupt, deliver
        self._pid = os.getpid()
        self._main = threading.main_thread().ident or 0
        self._writing = threading.Lock()
        self._busy = self._put_off = False
        self._turn = threading.Lock()
        self._serial = 0
        self._job: JobId | None = None
        self._withdrawn: set[int] = set()
        self._unsent = b""
        self._progress: ProgressNote | None = None  # the latest that has not been sent
        self._unheard = (
            False  # one has been sent, and the service not said that it may have another
        )
        self._calls: dict[int, Future[bytes]] = {}
        self._last_call = 0
        threading.Thread(target=self._listen, name="jobs lane", daemon=True).start()

    # --- the main thread

    def begin(self, serial: int, job_id: JobId) -> bool:
        """Say that a job starts; False if it has been withdrawn."""
        with self._turn:
            if serial in self._withdrawn:
                self._withdrawn.discard(serial)
                return False
            self._serial, self._job = serial, job_id
            self._unheard = False
        self._send(self._unsent + wire.frame(wire.STARTED, serial, wire.WHEN.pack(now_ms())))
        self._unsent = b""
        return True

    def announce_mark(self) -> None:
        """Say that the mark is about to be written behind the running job's output."""
        self._send(wire.frame(wire.MARKING, self._serial))

    def end(self, outcome: Outcome, took: float, usage: Usage, *, marked: bool) -> None:
        """Say how the job ended, at the latest when the next one begins: one write for both."""
        with self._turn:
            serial, self._job = self._serial, None
            progress, self._progress = self._progress, None
        if progress is not None:
            self._unsent += wire.frame(wire.PROGRESS, serial, progress.to_json().encode())
        at = outcome.finished_at or now_ms()
        ended = wire.ENDED.pack(at, took, usage.cpu, usage.max_rss, marked)
        if outcome.state is JobState.SUCCESS:
            made = wire.frame(wire.SUCCESS, serial, ended + (outcome.result or "null").encode())
        elif outcome.error is not None:
            told = wire.failure_to_json(outcome.error, outcome.final, outcome.again_in)
            made = wire.frame(wire.FAILURE, serial, ended + told)
        else:
            made = wire.frame(wire.STOPPED, serial, ended)
        self._unsent += made

    def flush(self) -> None:
        """Send what `end` has kept back."""
        if self._unsent:
            self._send(self._unsent)
            self._unsent = b""

    def retire(self, why: bytes) -> None:
        """Say that no further job begins here."""
        self._send(self._unsent + wire.frame(wire.RETIRE, 0, why))
        self._unsent = b""

    def on_signal(self, _number: int, _frame: object) -> None:
        """Signal handler. An exception in the middle of a write would leave half a frame."""
        if self._busy:
            self._put_off = True
        else:
            self._deliver()

    # --- any thread

    def progress(self, job_id: str, note: ProgressNote) -> None:
        """Tell how far the running job is; of what comes faster than the service wants it, the latest."""
        self._refuse_forks()
        with self._turn:
            if (
                job_id != self._job
            ):  # a thread that has outlived its job, or a job that is run within one
                return
            if self._unheard:
                self._progress = note
            else:
                self._send_progress(note)

    def _send_progress(self, note: ProgressNote) -> None:
        """While holding `_turn`: so that the job's end comes after it."""
        self._unheard, self._progress = True, None
        self._send(wire.frame(wire.PROGRESS, self._serial, note.to_json().encode()))

    def call(
        self, verb: Literal["add", "get", "cancel", "retry", "attempts"], body: bytes
    ) -> Future[bytes]:
        """Ask the service; the future's result is its reply."""
        self._refuse_forks()
        payload = json.dumps(verb).encode() + b"\n" + body
        if len(payload) > self._limit:
            raise JobsError(
                f"{len(payload)} bytes at once; at most {self._limit} go to the service"
            )
        reply: Future[bytes] = Future()
        with self._turn:
            self._last_call += 1
            number = self._last_call
            self._calls[number] = reply
        self._send(wire.frame(wire.CALL, number, payload))
        return reply

    def _refuse_forks(self) -> None:
        if os.getpid() != self._pid:
            raise JobsError(
                "a process that a job has forked cannot reach the service: let the job ask"
            )

    def _send(self, data: bytes) -> None:
        in_main = threading.get_ident() == self._main
        if in_main:
            self._busy = True
        try:
            with self._writing:
                sent = os.write(self._fd, data)
                while sent < len(data):
                    sent += os.write(self._fd, data[sent : sent + _PIECE])
        finally:
            if in_main:
                self._busy = False
        if in_main and self._put_off:
            self._put_off = False
            self._deliver()

    # --- the reading thread

    def _listen(self) -> None:
        frames = wire.FrameReader(self._limit)
        try:
            while data := os.read(self._fd, 65536):
                for kind, serial, payload in frames.feed(data):
                    self._take(kind, serial, payload)
        except OSError:
            pass  # a job closed every descriptor: as good as the end
        finally:
            processes.kill_children()
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def _take(self, kind: int, serial: int, payload: bytes) -> None:
        if kind == wire.INTERRUPT:
            with self._turn:
                job = self._job if serial == self._serial else None
            if job is not None:
                self._interrupt(job, Interrupt(payload.decode()))
                signal.pthread_kill(self._main, INTERRUPT_SIGNAL)
        elif kind == wire.WITHDRAW:
            with self._turn:
                dropped = [each for each in json.loads(payload) if each > self._serial]
                self._withdrawn.update(dropped)
            self._send(wire.frame(wire.DROPPED, 0, json.dumps(dropped).encode()))
        elif kind == wire.HEARD:
            with self._turn:
                if serial == self._serial and self._job is not None:
                    self._unheard = False
                    if self._progress is not None:
                        self._send_progress(self._progress)
        elif kind == wire.REPLY:
            with self._turn:
                call = self._calls.pop(serial, None)
            if call is not None:
                call.set_result(payload)
