"""The whole way of a job in an embedded app: request, row, child process, result."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import quart.testing

from jobs import (
    InvalidArguments,
    JobFailed,
    JobNotFound,
    JobRevoked,
    JobState,
    ResultTimeout,
)
from tests.apps import context_app
from tests.apps.context_app import CANARY, app, child, fails, jobs, see


@pytest.fixture(params=["lanes", "inline"])
async def running(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[quart.testing.TestApp]:
    monkeypatch.setenv("JOBS_DATABASE", str(tmp_path / "jobs.db"))
    monkeypatch.setenv("JOBS_ENGINE", request.param)
    monkeypatch.setenv("JOBS_LANES", "2")
    async with app.test_app() as test_app:
        yield test_app


async def submitted(
    running: quart.testing.TestApp, name: str, *arguments: Any, **options: Any
) -> Any:
    answer = await running.test_client().post(f"/run/{name}", json=list(arguments), **options)
    assert answer.status_code == 202, await answer.get_data()
    return await jobs.get((await answer.get_json())["id"])


async def test_a_job_sees_the_request_that_submitted_it(running: quart.testing.TestApp) -> None:
    client = running.test_client()
    await client.post("/login")
    answer = await client.patch(
        "/behind/see/%C3%BCber?q=1&q=2",
        root_path="/behind",
        scheme="https",
        headers=[
            ("Host", "example.org"),
            ("X-Repeated", "a"),
            ("X-Repeated", "b"),
            ("X-Tenant", "t1"),
            ("Remote-Addr", "6.6.6.6"),
        ],
        scope_base={"client": ("192.0.2.7", 4711)},
    )
    body = await answer.get_json()
    assert (answer.status_code, body["state"]) == (202, "PENDING")

    seen = await (await jobs.get(body["id"])).result(timeout=20)

    assert seen["cookies"].keys() == {"session"}
    del seen["cookies"]
    assert seen == {
        "method": "PATCH",
        "path": "/see/über",
        "url": "https://example.org/behind/see/%C3%BCber?q=1&q=2"
        if "%C3" in seen["url"]
        else "https://example.org/behind/see/über?q=1&q=2",
        "base_url": seen["url"].partition("?")[0],
        "host": "example.org",
        "remote_addr": "192.0.2.7",
        "view_args": {"item": "über"},
        "endpoint": "submit_see",
        "blueprint": None,
        "header_list": ["a", "b"],
        "query_list": ["1", "2"],
        "session_user": "ann",
        "tenant": "t1",
        "user_name": "Ann Å",
        "hidden": False,
        "link": "https://example.org/behind/page/%C3%BC",
        "app": "tests.apps.context_app",
        "attempt": 1,
    }


async def test_a_sync_view_submits_and_gets_the_id_after_the_commit(
    running: quart.testing.TestApp,
) -> None:
    answer = await running.test_client().post("/sync")
    handle = await jobs.get((await answer.get_json())["id"])
    assert (await handle.result(timeout=20))["method"] == "POST"


async def test_an_async_task_sees_the_request_too(running: quart.testing.TestApp) -> None:
    handle = await submitted(running, "see_async")
    assert await handle.result(timeout=20) == "POST /run/see_async"


@pytest.mark.parametrize("parent", ["parent", "parent_async"])
async def test_a_job_submitted_by_a_job_keeps_the_original_request(
    running: quart.testing.TestApp, parent: str
) -> None:
    handle = await submitted(running, parent, 3)
    inner = await jobs.get(await handle.result(timeout=20))
    assert await inner.result(timeout=20) == f"POST http://localhost/run/{parent} 3"
    assert inner.id != handle.id


async def test_waiting_for_a_job_inside_a_job_fails_with_the_reason(
    running: quart.testing.TestApp,
) -> None:
    handle = await submitted(running, "waits_for_a_job")
    with pytest.raises(JobFailed, match="WouldDeadlock"):
        await handle.result(timeout=20)


async def test_a_job_looks_up_and_cancels_others(running: quart.testing.TestApp) -> None:
    other = await child.apply_async((1,), countdown=60)
    sync = await context_app.asks_for_sync.delay(other.id)
    assert await sync.result(timeout=20) == "PENDING"
    waits = await context_app.waits_for_one_looked_up.delay(other.id)
    with pytest.raises(JobFailed, match="WouldDeadlock"):
        await waits.result(timeout=20)
    asks = await context_app.asks_for.delay(other.id)
    assert await asks.result(timeout=20) == ["PENDING", "PENDING", "REVOKED"]


async def test_outside_a_request_a_job_has_an_app_context_only(
    running: quart.testing.TestApp,
) -> None:
    handle = await context_app.without_request.delay()
    assert await handle.result(timeout=20) is True


async def test_the_failure_of_a_job_comes_with_its_own_traceback(
    running: quart.testing.TestApp,
) -> None:
    handle = await fails.delay("the shelf is empty")
    with pytest.raises(JobFailed, match="the shelf is empty") as caught:
        await handle.result(timeout=20)
    assert caught.value.error.type == "LookupError"
    assert "in fails" in (caught.value.error.traceback or "")
    assert "jobs/runner" not in (caught.value.error.traceback or "")


async def test_reading_the_body_in_a_job_says_that_it_does_not_travel(
    running: quart.testing.TestApp,
) -> None:
    handle = await submitted(running, "reads_body")
    with pytest.raises(JobFailed, match="carries no body"):
        await handle.result(timeout=20)


async def test_what_cannot_travel_fails_the_submit_and_names_itself(
    running: quart.testing.TestApp,
) -> None:
    answer = await running.test_client().post("/cannot")
    assert "g.tenant (object) cannot travel" in await answer.get_data(as_text=True)


async def test_wrong_arguments_are_refused_at_submit(running: quart.testing.TestApp) -> None:
    with pytest.raises(InvalidArguments, match="/depth"):
        await child.delay("deep")  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="/countdown"):
        await child.apply_async((1,), countdown=-1)


async def test_a_pending_job_is_cancelled_at_once(running: quart.testing.TestApp) -> None:
    handle = await child.apply_async((1,), countdown=60)
    assert await handle.cancel() is JobState.PENDING
    with pytest.raises(JobRevoked):
        await handle.result(timeout=20)
    assert (await handle.refresh()).state is JobState.REVOKED


async def test_a_job_waits_for_its_countdown(running: quart.testing.TestApp) -> None:
    handle = await context_app.without_request.apply_async(countdown=0.3)
    with pytest.raises(ResultTimeout):
        await handle.result(timeout=0.1)
    assert await handle.result(timeout=20) is True
    job = (await handle.refresh()).job
    assert job.run_at is not None
    assert job.started_at is not None
    assert job.run_at <= job.started_at < job.run_at + 2000


async def test_a_job_that_expires_before_its_time_is_revoked(
    running: quart.testing.TestApp,
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    handle = await context_app.without_request.apply_async(eta=soon, expires=0.1)
    with pytest.raises(JobRevoked, match="expired"):
        await handle.result(timeout=20)


async def test_an_unknown_id_is_not_found(running: quart.testing.TestApp) -> None:
    for unknown in ("nonsense", "019aa000-0000-7000-8000-000000000000"):
        with pytest.raises(JobNotFound):
            await jobs.get(unknown)


async def test_apply_runs_here_and_now_under_the_same_rules(running: quart.testing.TestApp) -> None:
    async with app.test_request_context("/here", method="PUT"):
        handle = await child.apply((5,))
    assert await handle.result() == "PUT http://localhost/here 5"
    failed = await fails.apply(("no",))
    with pytest.raises(JobFailed, match="no"):
        await failed.result()


async def test_after_request_functions_run_when_the_task_asks(
    running: quart.testing.TestApp,
) -> None:
    context_app.after_request_ran.clear()
    async with app.test_request_context("/"):
        handle = await context_app.with_after_request.apply()
    assert await handle.result() == "made"
    assert context_app.after_request_ran == ["made"]


async def test_nothing_of_a_secret_header_is_left_after_the_job(
    running: quart.testing.TestApp, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    """Fault row 44."""
    headers = {"Authorization": f"Bearer {CANARY}", "Cookie": f"token={CANARY}", f"X-{CANARY}": "1"}
    handle = await submitted(running, "says_canary", "!", headers=headers)
    assert await handle.result(timeout=20) == "Bea!"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".db"}
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
    out, err = capfd.readouterr()
    assert CANARY not in caplog.text + out + err
    assert CANARY not in repr(await jobs.get(handle.id))


async def test_a_test_client_without_lifespan_is_told_of_test_app() -> None:
    client = app.test_client()
    for answer in (await client.post("/run/child", json=[1]), await client.get("/look/1")):
        assert "app.test_app()" in await answer.get_data(as_text=True)


async def test_the_handle_waits_until_the_job_is_on_disk(running: quart.testing.TestApp) -> None:
    pending = see.delay([])
    handle = await pending
    assert (await jobs.store.get(handle.job.id)).task == "tests.apps.context_app.see"


async def test_many_jobs_from_many_coroutines_all_end(running: quart.testing.TestApp) -> None:
    handles = await asyncio.gather(
        *(context_app.without_request.apply_async(priority=index % 3) for index in range(300))
    )
    assert await asyncio.gather(*(handle.result(timeout=40) for handle in handles)) == [True] * 300
