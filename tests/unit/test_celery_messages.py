"""What goes over Celery's broker, and what is made of what comes."""

import json
from typing import Any

import pytest

pytest.importorskip("celery", reason="needs the extra celery")

from jobs import ConfigurationError
from jobs.celery.app import HEADER, VERSION, BadMessage, make_app, message_of, read
from jobs.celery.broker import CeleryBroker
from tests.store_play import new_job


def test_a_message_says_which_attempt_of_which_job_and_nothing_else() -> None:
    job = new_job(args='{"secret": "args"}', context=b"secret context", attempt=2)
    message = message_of(make_app("memory://"), job)
    assert message.headers[HEADER] == VERSION
    assert (message.headers["id"], message.headers["task"]) == (job.id, job.task)
    assert message.body[:2] == ((job.id, 3), {})
    assert "secret" not in json.dumps([message.headers, message.body])
    assert read(VERSION, message.body[0]) == (job.id, 3)


@pytest.mark.parametrize(
    "args",
    [None, [], ["a"], ["a", 0], ["a", "1"], ["a", True], [1, 1], ["a", 1, 2], ["x" * 37, 1], {}, 7],
)
def test_what_says_no_attempt_is_refused(args: Any) -> None:
    with pytest.raises(BadMessage, match="which attempt of which job"):
        read(VERSION, args)


@pytest.mark.parametrize("version", [None, 0, VERSION + 1, "1"])
def test_another_version_is_refused_in_words(version: Any) -> None:
    with pytest.raises(BadMessage, match="run the same release in services and workers"):
        read(version, ["a", 1])


def test_a_brokers_password_is_not_in_its_name() -> None:
    name = CeleryBroker("redis://user:hunter2@broker.example:6379/0").name
    assert "broker.example" in name
    assert "hunter2" not in name


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="JOBS_BROKER"):
        make_app("localhost:6379")
