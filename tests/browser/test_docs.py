"""The documentation page in a real browser."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect
from quart import Quart

import tests.api.tasks  # noqa: F401 - registers the tasks
from jobs import Jobs
from jobs.keys import new_key
from jobs.settings import Settings
from jobs.stores import open_store
from service.api import jobs_api
from service.app import create_app
from tests.serving import serving

pytestmark = pytest.mark.debian("chromium")

QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=QUIET
        )
        page = await browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(40_000)
        yield page
        await browser.close()


async def _try_it_out(page: Page, base: str, key: str = "") -> None:
    """Open the page at `base`, submit a job with it, as the holder of a key, and see the 202."""
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))

    answer = await page.goto(f"{base}/docs")
    assert answer is not None
    assert (answer.status, answer.request.redirected_from) == (200, None)
    if key:
        await page.locator(".btn.authorize").first.click()
        await page.locator(".auth-container input").fill(key)
        await page.locator(".auth-btn-wrapper .authorize").click()
        await page.locator(".auth-btn-wrapper .btn-done").click()
    operation = page.locator(".opblock-post", has_text="/tasks/api.words/jobs")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.locator("textarea").fill('{"text": "to be or not to be"}')
    await operation.get_by_role("button", name="Execute").click()
    status = operation.locator(".live-responses-table .response-col_status").last
    await expect(status).to_contain_text("202")
    await expect(operation.locator(".live-responses-table")).to_contain_text('"state"')

    assert f"{base}/tasks/api.words/jobs" in asked
    assert [url for url in asked if not url.startswith((f"{base}/", "data:"))] == []
    assert said == []


async def test_a_job_is_submitted_from_the_page(page: Page, tmp_path: Path) -> None:
    settings = Settings(
        database=str(tmp_path / "jobs.db"), tasks=("tests.api.tasks",), engine="inline", lanes=1
    )
    async with serving(create_app(settings)) as base:
        await _try_it_out(page, base)


async def test_the_page_works_under_a_prefix(page: Page, tmp_path: Path) -> None:
    app = Quart("host")
    Jobs(app, engine="inline", lanes=1, database=str(tmp_path / "jobs.db"))
    app.register_blueprint(jobs_api(url_prefix="/inner/api"))
    async with serving(app) as base:
        await _try_it_out(page, f"{base}/inner/api")


async def test_a_job_is_submitted_with_a_key(page: Page, tmp_path: Path) -> None:
    settings = Settings(
        database=str(tmp_path / "jobs.db"), tasks=("tests.api.tasks",), engine="inline", lanes=1
    )
    key, text = new_key("ci")
    async with open_store(settings) as store:
        await store.add_key(key)
    async with serving(create_app(settings)) as base:
        await _try_it_out(page, base, text)
