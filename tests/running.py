"""A command of ours, or of another server, as a process under test."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

PATIENCE = 30.0  #: seconds until a test gives up; nothing takes that long unless it is broken
ROOT = Path(__file__).parents[1]

Popen = Callable[..., "subprocess.Popen[bytes]"]  #: or what starts a process elsewhere


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """A process, what it has said, and everything that descends from it."""

    def __init__(
        self, command: list[str], *, cwd: Path, env: dict[str, str], popen: Popen = subprocess.Popen
    ) -> None:
        self._mark = uuid4().hex
        self._lines: list[str] = []
        self._said = threading.Condition()
        self.url = ""
        self.process = popen(
            command,
            cwd=cwd,
            env={name: text for name, text in os.environ.items() if not name.startswith("JOBS_")}
            | {"PYTHONUNBUFFERED": "1", "RUNNING_MARK": self._mark}
            | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as pipe:
            for line in pipe:
                with self._said:
                    self._lines.append(line.decode())
                    self._said.notify_all()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches."""
        deadline = time.monotonic() + PATIENCE
        with self._said:
            while (match := re.search(pattern, self.output)) is None:
                left = deadline - time.monotonic()
                ended = self.process.poll() is not None
                if left < 0 or (not self._said.wait(min(left, 0.2)) and ended):
                    pytest.fail(f"never said {pattern!r}:\n{self.output}")
            return match

    def serves(self, pattern: str = r"https?://[\d.]+:[1-9]\d*") -> "Running":
        """Wait until it says where it serves."""
        self.url = self.says(pattern)[0]
        return self

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self, start: bytes = b"") -> socket.socket:
        """A connection on which `start` has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(start)
        return connection

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        path = path.removeprefix(self.url)
        content = None if body is None else json.dumps(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        ) as client:
            try:
                client.request(method, path, content, kind | (headers or {}))
                response = client.getresponse()
                return Answer(response.status, response.headers, response.read())
            except http.client.HTTPException as cut:
                raise ConnectionResetError(f"the answer is cut: {cut!r}") from cut

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def result(self, accepted: Answer) -> Any:
        """The result of a job that the REST API accepted."""
        assert accepted.status == 202, accepted
        job = until(
            lambda: (
                (seen := self.get(accepted.headers["Location"]).json())
                and seen["state"] in ("SUCCESS", "FAILURE", "REVOKED")
                and seen
            )
        )
        assert job["state"] == "SUCCESS", job
        return self.get(job["links"]["result"]).json()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, Ctrl-C's as a terminal does to all, and wait for the end; the exit code."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def family(self) -> dict[int, str]:
        """All processes that descend from this one, it included: pid and command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                if f"RUNNING_MARK={self._mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().decode()
            except OSError:
                pass
        return found

    def is_gone(self) -> None:
        """Wait until no process of the family is left."""
        until(lambda: not self.family(), "processes are left")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        print(self.output)  # pytest shows it if the test failed


def until(condition: Callable[[], Any], otherwise: str = "it never came to pass") -> Any:
    """Look again and again until the condition is true; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(otherwise)
        time.sleep(0.02)
    return value


class Starter:
    """Starts processes in a folder, each with a database there, and ends them with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"JOBS_DATABASE": str(folder / "jobs.db"), "JOBS_LANES": "1"}
        self._running: list[Running] = []

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def command(
        self, *command: str, cwd: Path | None = None, popen: Popen = subprocess.Popen, **env: str
    ) -> Running:
        running = Running(list(command), cwd=cwd or self.folder, env=self.env | env, popen=popen)
        self._running.append(running)
        return running

    def python(self, *arguments: str, cwd: Path | None = None, **env: str) -> Running:
        return self.command(sys.executable, "-P", *arguments, cwd=cwd, **env)

    @staticmethod
    def command_of(*arguments: str) -> list[str]:
        """The command line of `quart-jobs`."""
        return [sys.executable, "-P", "-m", "service.cli", *arguments]

    def quart_jobs(self, *arguments: str, cwd: Path | None = None, **env: str) -> Running:
        return self.command(*self.command_of(*arguments), cwd=cwd, **env)

    def serve(self, *arguments: str, cwd: Path | None = None, **env: str) -> Running:
        """`quart-jobs serve` on a free port, up and running."""
        return self.quart_jobs(
            "serve", "--bind", "127.0.0.1:0", *arguments, cwd=cwd, **env
        ).serves()

    def close(self) -> None:
        for running in self._running:
            running.close()


def starter(tmp_path: Path) -> Iterator[Starter]:
    """For a fixture: `start = pytest.fixture(starter)`."""
    made = Starter(tmp_path)
    yield made
    made.close()
