"""A process is killed at each point of a job's way: what was accepted ends all the same, recorded once."""

import http.client
import json
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.model import JobState
from tests.apps.kill_points import AT, KILLED, POINTS
from tests.chaos.client import Client
from tests.chaos.cluster import Cluster, Member
from tests.chaos.history import Answer, Fault, Submission
from tests.chaos.observer import Observer
from tests.chaos.verdict import judge
from tests.running import PATIENCE, until

JOBS = 3
SETTLES = 30.0  #: seconds


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    killed = str(tmp_path / "killed")
    more = ["tests.apps.kill_points"]
    made = Cluster(tmp_path, more=more, JOBS_LANES="1", JOBS_GRACE="0.2", **{KILLED: killed})
    yield made
    made.close()


def submit(cluster: Cluster, task: str = "quick", **args: object) -> None:
    """Ask for jobs, whether or not somebody is there."""
    client = Client(cluster.connect, cluster.history)
    for _ in range(JOBS):
        client.submit(task, **args)


def run_one(cluster: Cluster, seconds: float) -> None:
    """Have a job run that takes a while."""
    submit(cluster, "sleeps", seconds=seconds)
    until(lambda: any(row.state is JobState.STARTED for row in cluster.records.rows()))


def comes_by(cluster: Cluster, point: str) -> Member:
    """Start a service that is to die at the point, and see to it that it comes there."""
    if point == "migration":
        return cluster.launch(**{AT: point})
    if point.startswith("reap"):
        first = cluster.serve()
        run_one(cluster, 0.5)
        cluster.kill(first)
        return cluster.launch(**{AT: point})
    member = cluster.serve(**{AT: point})
    if point.startswith("release"):
        run_one(cluster, 1.5)
        member.running.process.send_signal(signal.SIGTERM)
    else:
        submit(cluster)
    return member


@pytest.mark.parametrize("point", POINTS)
def test_what_was_accepted_ends_once_whatever_is_killed_where(cluster: Cluster, point: str) -> None:
    with Observer(cluster.records, cluster.history):
        member = comes_by(cluster, point)
        killed = cluster.folder / "killed"
        said = until(lambda: killed.exists() and killed.read_text(), "nobody came by")
        victim, at = said.split()
        if int(victim) == member.pid:
            member.running.process.wait(PATIENCE)
            cluster.died(member, "kill_member", float(at))
            cluster.serve()
        else:
            now = time.monotonic()
            fault = Fault("kill_child", float(at), now, member.name, int(victim), lethal=True)
            cluster.history.add(fault)
        submit(cluster)
        assert cluster.settle(SETTLES), "not all jobs came to their end"
    assert cluster.service is not None
    cluster.terminate(cluster.service)
    verdict = judge(evidence := cluster.evidence())
    assert verdict.good, str(verdict)
    assert {row.state for row in evidence.rows} == {JobState.SUCCESS}
    accepted = [each for each in evidence.of(Submission) if each.answer is Answer.ACCEPTED]
    assert len(accepted) >= JOBS


def sent_with_a_key(cluster: Cluster, path: str, body: object) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(cluster.bind, timeout=PATIENCE)) as client:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "only-once"}
        client.request("POST", path, json.dumps(body), headers)
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_a_request_with_a_key_that_got_no_answer_is_sent_again_and_makes_nothing_twice(
    cluster: Cluster, path: str
) -> None:
    jobs: list[Any] = [
        {"task": "tests.apps.chaos_tasks.quick", "args": {"token": token}} for token in ("a", "b")
    ]
    body = {"jobs": jobs} if path.endswith("batch") else jobs[0]
    count = len(jobs) if path.endswith("batch") else 1
    member = cluster.serve(**{AT: "add: after the commit, before the answer"})
    with pytest.raises((OSError, http.client.HTTPException)):
        sent_with_a_key(cluster, path, body)
    member.running.process.wait(PATIENCE)
    kept = [row.job_id for row in cluster.records.rows()]
    assert len(kept) == count
    cluster.serve()
    for _ in range(2):
        status, told = sent_with_a_key(cluster, path, body)
        assert status == 202
        assert [job["id"] for job in told.get("jobs", [told])] == kept
    until(lambda: all(row.state is JobState.SUCCESS for row in cluster.records.rows()))
    assert [row.job_id for row in cluster.records.rows()] == kept


def test_a_service_and_its_children_are_both_killed_at_points_of_their_own() -> None:
    assert len([point for point in POINTS if point.startswith("child")]) >= 3
    assert len(POINTS) >= 12
