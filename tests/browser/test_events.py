"""An `EventSource` in a real browser."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from quart import Quart

from jobs import Jobs
from service.api import jobs_api
from tests.api.tasks import report, wait
from tests.browser.test_docs import page  # noqa: F401 - a fixture
from tests.serving import serving

pytestmark = pytest.mark.debian("chromium")

HOWTO = Path(__file__).parents[2] / "docs/howto/follow.md"


def page_about(job: str) -> str:
    """The page that the documentation shows, with what shows every event and the stream's end."""
    found = re.search(r"```html\n(.+?)```", HOWTO.read_text(), re.DOTALL)
    assert found is not None
    shown = re.sub(r'"/jobs/[^"]+"', f'"/api/jobs/{job}/events"', found[1])
    kinds = ["submitted", "started", "progress", "attempt_ended", "finished"]
    more = f"""
      for (const kind of {kinds})
        events.addEventListener(kind, (event) => told.append(kind + " " + event.lastEventId + "\\n"))
      events.addEventListener("finished", () => told.append("state " + events.readyState))
    </script><pre id="told"></pre>"""
    return f"<!doctype html><title>job</title>{shown.replace('</script>', more)}"


async def test_an_event_source_is_told_everything_and_then_lets_go(
    page: Page,  # noqa: F811
    tmp_path: Path,
) -> None:
    app = Quart("following")
    Jobs(app, engine="inline", lanes=1, database=str(tmp_path / "jobs.db"))
    app.register_blueprint(jobs_api(), url_prefix="/api")

    @app.get("/about/<job>")
    async def about(job: str) -> str:
        return page_about(job)

    @app.post("/start/<kind>")
    async def start(kind: str) -> str:
        job = await (report.delay(10) if kind == "report" else wait.delay())
        return job.id

    async with serving(app) as base:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        job = await (await page.request.post(f"{base}/start/report")).text()
        await page.goto(f"{base}/about/{job}")
        told = page.locator("#told")
        await expect(told).to_contain_text("state 2")  # closed
        lines = (await told.inner_text()).splitlines()
        assert [line.split()[0] for line in lines] == [
            "submitted",
            "started",
            "progress",
            "attempt_ended",
            "finished",
            "state",
        ]
        assert lines[0] == "submitted 0.0.0"
        await expect(page.locator("#bar")).to_have_js_property("value", 10)
        assert len([url for url in asked if url.endswith("/events")]) == 1

        job = await (await page.request.post(f"{base}/start/wait")).text()
        await page.goto(f"{base}/about/{job}")
        await expect(told).to_contain_text("started")
        assert (await page.request.delete(f"{base}/api/jobs/{job}")).status == 202
        await expect(told).to_contain_text("finished")
