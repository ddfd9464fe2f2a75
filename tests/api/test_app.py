"""The ready-made app: inert, honest about what it cannot import, and whole when served."""

import asyncio
import json
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from jobs.errors import AppNotImportable
from jobs.settings import Settings
from service.app import create_app
from tests.serving import serving


def test_building_the_app_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = create_app(Settings(tasks=("tests.api.tasks",)))
    assert "api.words" in app.extensions["jobs"].registry
    assert list(tmp_path.iterdir()) == []


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_TASKS", "tests.api.tasks")
    assert "api.echo" in create_app().extensions["jobs"].registry


def test_a_task_module_that_fails_to_import_is_named_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_tasks.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AppNotImportable, match=r"'broken_tasks'.*no_such_module_at_all"):
        create_app(Settings(tasks=("broken_tasks",)))
    with pytest.raises(AppNotImportable, match="no module 'not_there'"):
        create_app(Settings(tasks=("not_there",)))
    sys.modules.pop("broken_tasks", None)


async def test_a_job_runs_in_a_child_process_of_a_real_server(tmp_path: Path) -> None:
    settings = Settings(database=str(tmp_path / "jobs.db"), tasks=("tests.api.tasks",), lanes=1)

    def run(url: str) -> dict[str, object]:
        request = urllib.request.Request(
            f"{url}/tasks/api.words/jobs",
            json.dumps({"text": "to be or not to be"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            job = json.load(answer)
        deadline = time.monotonic() + 30
        while job["state"] in {"PENDING", "STARTED"} and time.monotonic() < deadline:
            with urllib.request.urlopen(url + job["links"]["self"]) as answer:
                job = json.load(answer)
            time.sleep(0.02)
        assert job["state"] == "SUCCESS", job
        with urllib.request.urlopen(url + job["links"]["result"]) as answer:
            result: dict[str, object] = json.load(answer)
        return result

    async with serving(create_app(settings)) as url:
        assert await asyncio.to_thread(run, url) == {"words": 6, "longest": "not"}
