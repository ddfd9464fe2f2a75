"""Event streams of a service that runs, and tasks that say something."""

import http.client
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager

from tests.following import Told, parse
from tests.running import PATIENCE, Running

TASKS = """
import pathlib, sys, time
from jobs import current_job, task

@task(name="talk", max_attempts=2)
def talk(steps: int, pause: float) -> int:
    for step in range(steps):
        current_job.progress(step + 1, steps)
        print("line", step, flush=True)
        time.sleep(pause)
    print("no more", end="")
    if current_job.attempt == 1:
        raise ValueError("once more")
    return steps

@task(name="hold")
def hold(file: str) -> None:
    print("holding", flush=True)
    current_job.progress(1, message="holding")
    while not pathlib.Path(file).exists():
        time.sleep(0.01)
"""


@contextmanager
def stream(
    service: Running, path: str, last: str = "", *, key: str = ""
) -> Iterator[Iterator[Told]]:
    """The events as they come, to the answer's end."""
    headers = {"Last-Event-ID": last} if last else {}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)) as client:
        client.request("GET", path.removeprefix(service.url), headers=headers)
        answer = client.getresponse()
        assert answer.status in (200, 204)

        def told() -> Iterator[Told]:
            block = ""
            while line := answer.readline().decode():
                block += line
                if block.endswith("\n\n"):
                    event = parse(block.removesuffix("\n\n"))
                    block = ""
                    if event is not None:
                        yield event

        yield told()


def settled(told: list[Told]) -> list[Told]:
    """Without the times of starts: until an attempt has ended, its start is when the job was claimed."""
    return [
        each._replace(data=each.data | {"at": None}) if each.kind == "started" else each
        for each in told
    ]


def all_of(service: Running, path: str, last: str = "") -> list[Told]:
    with stream(service, path, last) as events:
        return list(events)


def now_and_then(service: Running, path: str, seed: int) -> list[Told]:
    """What a client is told that goes away and comes again, at random."""
    chance = random.Random(seed)
    told: list[Told] = []
    while not told or told[-1].kind != "finished":
        with stream(service, path, told[-1].id if told else "") as events:
            for event in events:
                told.append(event)
                if chance.random() < 0.2:
                    break
    return told
