"""Event streams: of one job, of all, and of what a job writes."""

import asyncio
import json
import re
from typing import Any

import pytest
from quart import Quart

from jobs import key_ring
from jobs.errors import StoreError
from jobs.events import EventKind
from jobs.keys import ApiKey, Scope, new_key
from jobs.model import ErrorKind, Job, JobError, JobState, Outcome, new_job_id, now_ms
from jobs.protocols import Wrote
from jobs.settings import Settings
from jobs.stores import open_store
from service.api import sse
from service.api.schemas import EventObject, LogList
from tests.api.conftest import Api, problem
from tests.following import PATIENCE, Told, following

pytestmark = pytest.mark.timeout(60)


def kinds(told: list[Told]) -> list[str]:
    return [each.kind for each in told]


async def quiet(app: Quart) -> None:
    """Wait until nobody follows anything."""
    async with asyncio.timeout(PATIENCE):
        while app.extensions["jobs"].streams.open:
            await asyncio.sleep(0.005)


@pytest.fixture
async def ran(settings: Settings) -> Job:
    """A job that failed, and then succeeded, before the app was opened, and wrote both times."""
    job = Job(id=new_job_id(), task="other", created_at=1)
    async with open_store(settings) as store:
        await store.add([job])
        (claimed,) = (await store.claim(1)).jobs
        await store.say([Wrote(job.id, 1, "one\n")])
        error = JobError(ErrorKind.EXCEPTION, "OSError", "no", "Traceback …")
        again = Outcome(job.id, 1, JobState.PENDING, error=error, run_at=now_ms(), log="one\ntwo")
        await store.finish([again])
        (claimed,) = (await store.claim(1)).jobs
        await store.finish([Outcome(job.id, claimed.attempt, JobState.SUCCESS, log="<ü>\n")])
        return job


# One job


async def test_a_job_is_followed_from_its_first_event_to_its_last(app: Quart, api: Api) -> None:
    job = await api.submit("api.wait")
    async with following(app, job["links"]["events"]) as stream:
        assert await stream.open() == 200
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert stream.headers["Cache-Control"] == "no-store"
        submitted = await stream.next()
        assert submitted is not None
        assert submitted.data["job"] == job["id"]
        assert submitted.data["at"] == job["created_at"]
        await stream.until("started")
        await api.client.delete(job["links"]["self"])
        told = await stream.all()
    assert kinds(told) == ["submitted", "started", "attempt_ended", "finished"]
    assert told[2].data["outcome"] == "cancelled"
    assert (told[3].data["state"], told[3].data["error"]["kind"]) == ("REVOKED", "cancelled")


async def test_each_event_has_the_published_shape(ran: Job, app: Quart) -> None:
    async with following(app, f"/jobs/{ran.id}/events") as stream:
        told = await stream.all()
    for each in told:
        EventObject.model_validate_json(json.dumps(each.data))
    assert told[1].data["attempt"] == 1
    assert told[-1].data["state"] == "SUCCESS"


async def test_a_job_that_ended_long_ago_is_told_whole(ran: Job, app: Quart) -> None:
    async with following(app, f"/jobs/{ran.id}/events") as stream:
        told = await stream.all()
    assert [(each.kind, each.data.get("text")) for each in told] == [
        ("submitted", None),
        ("started", None),
        ("log", "one\n"),
        ("log", "two"),
        ("attempt_ended", None),
        ("started", None),
        ("log", "<ü>\n"),
        ("attempt_ended", None),
        ("finished", None),
    ]
    assert [told[4].data["outcome"], told[4].data["error"]["type"]] == ["exception", "OSError"]


async def test_a_stream_goes_on_after_any_event(ran: Job, app: Quart) -> None:
    path = f"/jobs/{ran.id}/events"
    async with following(app, path) as stream:
        told = list(await stream.all())
    for at, last in enumerate(told[:-1]):
        async with following(app, path, Last_Event_ID=last.id) as stream:
            assert await stream.all() == told[at + 1 :]


async def test_after_the_last_event_there_is_nothing_more(ran: Job, app: Quart) -> None:
    async with following(app, f"/jobs/{ran.id}/events") as stream:
        told = await stream.all()
    answer = await app.test_client().get(
        f"/jobs/{ran.id}/events", headers={"Last-Event-ID": told[-1].id}
    )
    assert (answer.status_code, await answer.get_data()) == (204, b"")


@pytest.mark.parametrize("given", ["x", "1", "1.2", "1.9.0", "-1.0.0", "1.1.1.1", "²..", "1" * 99])
async def test_an_id_that_no_event_has_is_refused(ran: Job, api: Api, given: str) -> None:
    answer = await api.client.get(f"/jobs/{ran.id}/events", headers={"Last-Event-ID": given})
    document = await problem(answer, 422, "invalid-arguments")
    assert [error["pointer"] for error in document["errors"]] == ["/header/Last-Event-ID"]


async def test_it_is_refused_whatever_the_form_of_the_answer(ran: Job, api: Api) -> None:
    for accept in ("text/plain", "application/json", "text/event-stream"):
        headers = {"Last-Event-ID": "x", "Accept": accept}
        answer = await api.client.get(f"/jobs/{ran.id}/logs", headers=headers)
        await problem(answer, 422, "invalid-arguments")


async def test_the_published_pattern_of_ids_has_those_of_events_and_the_empty_one(
    ran: Job, app: Quart, api: Api
) -> None:
    document = await (await api.client.get("/openapi.json")).get_json()
    (pattern,) = (
        each["schema"]["pattern"]
        for each in document["paths"]["/jobs/{job_id}/events"]["get"]["parameters"]
        if each["name"] == "Last-Event-ID"
    )
    async with following(app, f"/jobs/{ran.id}/events", Last_Event_ID="") as stream:
        told = await stream.all()
    assert kinds(told)[0] == "submitted"
    assert all(re.fullmatch(pattern, given) for given in ["", *(each.id for each in told)])


async def test_progress_is_told_and_shown(app: Quart, api: Api) -> None:
    job = await api.submit("api.report", {"steps": 500, "last": "ü"})
    async with following(app, job["links"]["events"]) as stream:
        told = await stream.all()
    last = [each for each in told if each.kind == "progress"][-1]
    assert last.data["progress"] == {"done": 500, "total": 500, "message": "ü"}
    assert kinds(told).count("progress") < 10
    assert (await api.ended(job))["progress"] == last.data["progress"]


async def test_what_another_process_does_is_told_too(
    app: Quart, api: Api, settings: Settings
) -> None:
    job = await api.submit("api.echo", queue="elsewhere", countdown=600)
    async with following(app, job["links"]["events"]) as stream:
        await stream.until("submitted")
        async with open_store(settings) as other:
            await other.cancel(job["id"])
            finished = await stream.until("finished")
    assert finished.data["state"] == "REVOKED"


async def test_a_quiet_stream_says_that_it_is_there(
    app: Quart, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = app.extensions["jobs"]
    monkeypatch.setattr(jobs, "settings", jobs.settings.model_copy(update={"heartbeat": 0.02}))
    job = await api.submit("api.echo", countdown=600)
    async with following(app, job["links"]["events"]) as stream:
        await stream.until("submitted")
        await stream.beat()
        await stream.beat()


async def test_who_goes_away_leaves_nothing_behind(app: Quart, api: Api) -> None:
    job = await api.submit("api.echo", countdown=600)
    for path in (job["links"]["events"], "/events"):
        async with following(app, path) as stream:
            await stream.open()
        await quiet(app)
    streams = app.extensions["jobs"].streams
    assert (streams._of_job, streams._of_all, streams._mark) == ({}, set(), None)


async def test_a_head_request_is_answered_without_a_stream(app: Quart, api: Api) -> None:
    job = await api.submit("api.echo", countdown=600)
    for path in (job["links"]["events"], "/events"):
        answer = await api.client.head(path)
        assert answer.status_code == 200
        assert answer.content_type.startswith("text/event-stream")
    assert app.extensions["jobs"].streams.open == 0


async def test_streams_beyond_the_limit_are_refused(app: Quart, api: Api) -> None:
    app.extensions["jobs"].streams.most = 2
    job = await api.submit("api.echo", countdown=600)
    async with (
        following(app, job["links"]["events"]) as first,
        following(app, "/events") as second,
    ):
        await first.until("submitted")
        assert await second.open() == 200
        for path in (job["links"]["events"], "/events"):
            answer = await api.client.get(path)
            await problem(answer, 503, "too-many-streams")
            assert int(answer.headers["Retry-After"]) > 0
        assert (await api.client.get(job["links"]["self"])).status_code == 200
    await quiet(app)
    async with following(app, "/events") as third:
        assert await third.open() == 200


async def test_the_service_ends_streams_when_it_is_to_stop(app: Quart, api: Api) -> None:
    jobs = app.extensions["jobs"]
    job = await api.submit("api.echo", countdown=600)
    async with (
        following(app, job["links"]["events"]) as one,
        following(app, "/events") as all_of_them,
    ):
        await one.until("submitted")
        await all_of_them.open()
        jobs.stopping.set()
        assert kinds(await one.all()) == ["submitted"]
        assert await all_of_them.all() == []
    await problem(await api.client.get("/events"), 503, "too-many-streams")


async def test_a_reader_that_takes_nothing_is_dropped_and_nothing_kept_for_it(
    app: Quart, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.streams.MOST_WAITING", 5)
    reading = asyncio.Event()

    leaves = asyncio.Event()

    async def receive() -> Any:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            reading.set()
            await asyncio.Event().wait()  # the client's window is full

    async with app.test_client().request("/events") as connection:
        scope = connection.scope
        await connection.disconnect()
    slow = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]
    await reading.wait()
    async with following(app, "/events?event=submitted") as quick:
        await quick.open()
        for _ in range(12):
            await api.submit("api.echo", countdown=600)
            await quick.until("submitted")
    await quiet(app)
    leaves.set()  # for which Quart 0.23 waits, whatever became of the answer
    async with asyncio.timeout(PATIENCE):
        await slow


# All jobs


async def test_all_jobs_are_followed_from_now_on(ran: Job, app: Quart, api: Api) -> None:
    old = await api.submit("api.wait")
    async with following(app, old["links"]["events"]) as stream:
        await stream.until("started")
    async with following(app, "/events") as stream:
        await stream.open()
        job = await api.submit("api.fail", {"message": "no"})
        await stream.until("finished")
        await api.client.delete(old["links"]["self"])
        await stream.until("finished")
    assert [(each.kind, each.data["job"]) for each in stream.told] == [
        ("submitted", job["id"]),
        ("started", job["id"]),
        ("attempt_ended", job["id"]),
        ("finished", job["id"]),
        ("attempt_ended", old["id"]),
        ("finished", old["id"]),
    ]
    assert {each.id for each in stream.told} == {""}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (
            "task=api.echo",
            [("submitted", 0), ("started", 0), ("attempt_ended", 0), ("finished", 0)],
        ),
        ("queue=slow&event=finished", [("finished", 1)]),
        ("event=submitted", [("submitted", 0), ("submitted", 1), ("submitted", 2)]),
    ],
)
async def test_all_jobs_are_filtered(
    app: Quart, api: Api, query: str, wanted: list[tuple[str, int]]
) -> None:
    async with following(app, f"/events?{query}") as stream:
        await stream.open()
        jobs = []
        for task, facts in (("api.echo", {}), ("api.report", {"queue": "slow"})):
            args = {"steps": 2} if facts else {}
            jobs.append(await api.submit(task, args, **facts))
            await api.ended(jobs[-1])
        jobs.append(await api.submit("api.keyword", {"number": 1}))
        for _ in wanted:
            await stream.next()
    assert [(each.kind, each.data["job"]) for each in stream.told] == [
        (kind, jobs[at]["id"]) for kind, at in wanted
    ]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("event=ended", "event"),
        ("state=PENDING", "state"),
        ("task=a&task=b", "task"),
        ("queue=%00", "queue"),
    ],
)
async def test_a_wrong_filter_is_refused_by_name(api: Api, query: str, name: str) -> None:
    document = await problem(await api.client.get(f"/events?{query}"), 422, "invalid-arguments")
    assert [error["pointer"] for error in document["errors"]] == [f"/query/{name}"]


async def test_who_follows_all_sees_the_callers_own_jobs(app: Quart, api: Api) -> None:
    headers = {}
    for owner, scopes in (
        ("ann", [Scope.SUBMIT, Scope.READ]),
        ("bob", [Scope.SUBMIT, Scope.READ]),
        ("root", [Scope.ADMIN]),
    ):
        key, text = new_key("test", owner=owner, scopes=scopes)
        await app.extensions["jobs"].keys.add(key)
        headers[owner] = {"Authorization": f"Bearer {text}"}
    async with (
        following(app, "/events?event=submitted", **headers["ann"]) as hers,
        following(app, "/events?event=submitted", **headers["root"]) as everyones,
    ):
        await hers.open()
        await everyones.open()
        for owner in ("bob", "ann"):
            answer = await api.client.post(
                "/jobs", json={"task": "api.echo"}, headers=headers[owner]
            )
            assert answer.status_code == 202
        told = await hers.next()
        assert told is not None
        assert told.data["job"] == (await answer.get_json())["id"]
        assert await everyones.next()
        assert await everyones.next()


# Until when a caller may read


@pytest.fixture
def heartbeat(app: Quart, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = app.extensions["jobs"]
    monkeypatch.setattr(jobs, "settings", jobs.settings.model_copy(update={"heartbeat": 0.05}))


async def _key(app: Quart, **facts: Any) -> tuple[ApiKey, dict[str, str]]:
    key, text = new_key("ann", **facts)
    await app.extensions["jobs"].keys.add(key)
    return key, {"Authorization": f"Bearer {text}"}


@pytest.mark.usefixtures("heartbeat")
@pytest.mark.parametrize("ending", ["revoked", "expired"])
async def test_a_stream_ends_when_its_key_does(
    app: Quart, api: Api, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    key, ann = await _key(app, lasts=600)
    _, bob = await _key(app)
    body = {"task": "api.echo", "countdown": 600}
    job = await (await api.client.post("/jobs", json=body, headers=ann)).get_json()
    path = job["links"]["events"]
    log = path.replace("/events", "/logs")
    async with (
        following(app, path, **ann) as of_job,
        following(app, "/events", **ann) as of_all,
        following(app, log, Accept="text/event-stream", **ann) as of_log,
        following(app, "/events", **bob) as others,
    ):
        streams = (of_job, of_all, of_log, others)
        for stream in streams:
            assert await stream.open() == 200
        for stream in streams:  # a key that is good is found to be so
            for _ in range(3):
                await stream.beat()
        if ending == "revoked":
            await app.extensions["jobs"].keys.revoke(key.id)
        else:
            monkeypatch.setattr(key_ring, "now_ms", lambda: key.expires_at)
        for stream in (of_job, of_all, of_log):
            assert await stream.all() == []
        for _ in range(3):
            await others.beat()
    await problem(await api.client.get(path, headers=ann), 401, "unauthenticated")


async def test_a_key_is_looked_at_every_heartbeat_and_not_for_every_event(
    app: Quart, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, ann = await _key(app)
    _, other = await _key(app)
    jobs = app.extensions["jobs"]
    clock, looks, holds = [0.0], [], jobs.keys.holds

    async def counted(key_id: str) -> bool:
        looks.append(clock[0])
        return bool(await holds(key_id))

    monkeypatch.setattr(sse, "monotonic", lambda: clock[0])
    monkeypatch.setattr(jobs.keys, "holds", counted)
    async with following(app, "/events?event=submitted", **ann) as stream:
        await stream.open()
        for _ in range(9):
            clock[0] += jobs.settings.heartbeat / 4
            await api.client.post("/jobs", json={"task": "api.echo"}, headers=other)
            await stream.until("submitted")
        assert looks == [jobs.settings.heartbeat, 2 * jobs.settings.heartbeat]
        await jobs.keys.revoke(key.id)
        clock[0] += jobs.settings.heartbeat
        told = len(stream.told)
        await api.client.post("/jobs", json={"task": "api.echo"}, headers=other)
        assert len(await stream.all()) == told


@pytest.mark.usefixtures("heartbeat")
async def test_a_stream_whose_key_cannot_be_looked_up_ends(
    app: Quart, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ann = await _key(app)

    async def holds(_: str) -> bool:
        raise StoreError("the disk is gone")

    async with following(app, "/events", **ann) as stream:
        await stream.open()
        monkeypatch.setattr(app.extensions["jobs"].keys, "holds", holds)
        assert await stream.all() == []


# What a job writes


async def test_a_log_is_json_by_attempt_for_who_asks(ran: Job, api: Api) -> None:
    path, accept = f"/jobs/{ran.id}/logs", {"Accept": "application/json"}
    answer = await api.client.get(path, headers=accept)
    LogList.model_validate_json(await answer.get_data())
    first, second = {"attempt": 1, "text": "one\ntwo"}, {"attempt": 2, "text": "<ü>\n"}
    assert await answer.get_json() == {"logs": [first, second]}
    answer = await api.client.get(f"{path}?attempt=2", headers=accept)
    assert await answer.get_json() == {"logs": [second]}
    for other in ("text/plain", "*/*", "image/png"):
        answer = await api.client.get(path, headers={"Accept": other})
        assert answer.content_type == "text/plain; charset=utf-8"
        assert answer.headers["Vary"] == "Accept"


async def test_a_log_is_followed_by_who_asks_for_events(ran: Job, app: Quart) -> None:
    path, accept = f"/jobs/{ran.id}/logs", "text/event-stream"
    async with following(app, path, Accept=accept) as stream:
        told = list(await stream.all())
    assert [each.data.get("text") for each in told] == ["one\n", "two", "<ü>\n", None]
    assert told[-1].kind == "finished"
    async with following(app, f"{path}?attempt=1", Accept=accept, Last_Event_ID=told[0].id) as more:
        assert await more.all() == [told[1], told[3]]


def test_every_kind_of_event_is_in_the_documentation() -> None:
    from service.api.events import routes

    text = "".join(route.description for route in routes)
    assert all(f"`{kind}`" in text for kind in EventKind)
