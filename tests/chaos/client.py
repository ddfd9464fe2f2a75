"""Clients of the REST API that record what they asked and what they were told."""

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Self
from uuid import uuid4

from jobs.model import JobState

from .history import Answer, Cancel, History, Sighting, Submission

TIMEOUT = 5.0  #: seconds until an answer that does not come is given up
BACKLOG = 60  #: jobs; above, clients wait

# Each behaviour, how often it is asked for, and its arguments.
MIX: list[tuple[str, int, dict[str, list[Any]]]] = [
    ("quick", 40, {}),
    ("sleeps", 10, {"seconds": [0.05, 0.1, 0.2, 1.0]}),
    ("sleeps_async", 6, {"seconds": [0.05, 0.3, 0.8]}),
    ("computes", 4, {"seconds": [0.02, 0.1]}),
    ("fails", 6, {"times": [1, 2, 3]}),
    ("dies", 5, {"how": ["kill", "exit", "segfault"], "times": [1, 1, 2, 9]}),
    ("hangs", 1, {}),
    ("hangs_on", 1, {}),
    ("forks", 4, {"seconds": [0.05, 0.5]}),
    ("submits", 5, {}),
    ("prints", 2, {}),
]


class Client:
    """One caller of the service. Each of its requests is a connection of its own, made by `connect`, which takes
    how long it may last."""

    def __init__(self, connect: Callable[[float], socket.socket], history: History) -> None:
        self._connect, self._history = connect, history

    def submit(self, task: str, **args: Any) -> str | None:
        """Ask for a job; its id, if it was accepted."""
        token = uuid4().hex[:12]
        body = {"task": f"tests.apps.chaos_tasks.{task}", "args": {"token": token} | args}
        sent = time.monotonic()
        answer, job_id, detail = Answer.UNKNOWN, None, ""
        try:
            status, told = self._ask("POST", "/jobs", body)
        except ConnectionRefusedError:
            answer, detail = Answer.REFUSED, "the connection was refused"
        except (OSError, http.client.HTTPException, ValueError) as error:
            detail = repr(error)
        else:
            detail = f"{status} {told.get('type', '')}"
            if status == 202:
                answer, job_id = Answer.ACCEPTED, told["id"]
            elif status == 507 or (status == 503 and told["type"].endswith("/busy")):
                answer = Answer.REFUSED
            elif status < 500:
                raise AssertionError(f"the service does not understand its client: {status} {told}")
        done = time.monotonic()
        self._history.add(Submission(token, task, sent, done, answer, job_id, detail))
        return job_id

    def cancel(self, job_id: str) -> None:
        """Ask it to stop."""
        self._history.add(Cancel(job_id, time.monotonic()))
        self._try("DELETE", f"/jobs/{job_id}")

    def look(self, job_id: str) -> JobState | None:
        """How it stands, if the service says so."""
        status, told = self._try("GET", f"/jobs/{job_id}")
        if status == 404:
            self._history.add(Sighting(job_id, time.monotonic(), None))
        return JobState(told["state"]) if status == 200 else None

    def _try(self, method: str, path: str) -> tuple[int, Any]:
        try:
            return self._ask(method, path)
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = None if body is None else json.dumps(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", timeout=TIMEOUT)) as asking:
            asking.sock = self._connect(TIMEOUT)
            asking.request(method, path, content, kind)
            response = asking.getresponse()
            return response.status, json.loads(response.read())


class Crowd:
    """Several clients at work, each by its own dice; context manager. `backlog()` is how many jobs wait."""

    def __init__(self, client: Client, seed: int, size: int, backlog: Any) -> None:
        self._client, self._backlog = client, backlog
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} client {n}"),))
            for n in range(size)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, dice: random.Random) -> None:
        try:
            while not self._stop.is_set():
                self._ask_for_one(dice)
                while not self._stop.wait(0.05) and self._backlog() > BACKLOG:
                    pass
        except BaseException as error:
            self.failure = error

    def _ask_for_one(self, dice: random.Random) -> None:
        ((task, _, choices),) = dice.choices(MIX, [weight for _, weight, _ in MIX])
        args = {name: dice.choice(values) for name, values in choices.items()}
        fate = dice.random()
        job_id = self._client.submit(task, **args)
        if job_id is None:
            self._stop.wait(0.1)
        elif fate < 0.1:
            self._stop.wait(fate * 3)
            self._client.cancel(job_id)
        elif fate < 0.3:
            for _ in range(10):
                state = self._client.look(job_id)
                if self._stop.wait(0.1) or (state is not None and state.ended):
                    break
