"""Who may do what, and whose jobs they see."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, Request

from jobs import Jobs, key_ring
from jobs.keys import ApiKey, Scope, new_key
from jobs.model import now_ms
from service.api import Principal, jobs_api, key_principal
from service.api.blueprint import TABLE
from service.api.routes import Route
from tests.api.conftest import Api, problem
from tests.api.tasks import echo

ALL = frozenset(Scope)
EVERYTHING_BUT_ADMIN = ALL - {Scope.ADMIN}
ROUTES = pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
UNKNOWN = "0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77"


class Keys:
    """Makes keys in the app's database; a key's headers are how its holder asks."""

    def __init__(self, app: Quart) -> None:
        self.ring = app.extensions["jobs"].keys
        self.made: list[ApiKey] = []

    async def __call__(self, owner: str, *scopes: str, **facts: Any) -> dict[str, str]:
        wanted = [Scope(each) for each in scopes] or EVERYTHING_BUT_ADMIN
        key, text = new_key("test", owner=owner, scopes=wanted, **facts)
        await self.ring.add(key)
        self.made.append(key)
        return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def keys(app: Quart) -> Keys:
    return Keys(app)


@pytest.fixture
async def ann(keys: Keys) -> dict[str, str]:
    return await keys("ann")


async def _ask(api: Api, route: Route, headers: dict[str, str], job_id: str = UNKNOWN) -> Any:
    """Ask a route something that it has an answer to, if it is about an existing job."""
    path = route.path.replace("<job_id>", job_id).replace("<name>", "api.echo")
    path = path.replace("<slug>", "unknown-job").replace("<file>", "docs.js")
    body: Any = None
    if route.method == "POST":
        body = {"value": 1} if route.each_task else {"task": "api.echo"}
    assert "<" not in path, "say here what stands for this part of a path"
    if route.path.endswith("/events"):  # its answer has no end
        async with api.client.request(path, headers=headers) as connection:
            await connection.send_complete()
            connection.response_data += await connection.receive()
            await connection.disconnect()
        return await connection.as_response()
    return await api.client.open(path, method=route.method, json=body, headers=headers)


# Who is let in


@ROUTES
async def test_a_route_is_closed_to_who_has_no_key_unless_it_is_for_everyone(
    api: Api, keys: Keys, route: Route
) -> None:
    await keys("ann")
    answer = await _ask(api, route, {})
    if route.scope is None:
        assert route.path.split("/")[1] in ("livez", "readyz", "openapi.json", "docs", "problems")
        assert answer.status_code == 200
    else:
        await problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="quart-jobs"'


@ROUTES
async def test_a_route_needs_its_own_scope_and_no_other(api: Api, keys: Keys, route: Route) -> None:
    others = await keys("ann", *(EVERYTHING_BUT_ADMIN - {route.scope}))
    answer = await _ask(api, route, others)
    if route.scope is None:
        assert answer.status_code == 200
        return
    document = await problem(answer, 403, "missing-scope")
    assert f"'{route.scope}'" in document["detail"]
    assert f'scope="{route.scope}"' in answer.headers["WWW-Authenticate"]
    for scope in (route.scope, Scope.ADMIN):
        answer = await _ask(api, route, await keys("ann", scope))
        assert answer.status_code not in (401, 403)


async def test_every_key_that_is_not_good_is_refused_in_the_same_words(
    api: Api, keys: Keys, ann: dict[str, str]
) -> None:
    expired = await keys("ann", lasts=-1)
    revoked = await keys("ann")
    await keys.ring.revoke(keys.made[-1].id)
    good = ann["Authorization"]
    wrong = good[:-5] + ("AAAAA" if good[-5:] != "AAAAA" else "BBBBB")
    unknown = f"Bearer {new_key('never kept')[1]}"
    refused = [
        {}, expired, revoked, *({"Authorization": text} for text in (
            wrong, unknown, good + "A", good[:-1], "Bearer", "Bearer ", "Bearer qj_", f"Basic {good[7:]}",
            good[7:], f"{good}, {good}", "Bearer \xe9",
        )),
        [("Authorization", good), ("Authorization", good)],
    ]  # fmt: skip
    said = set()
    for headers in refused:
        answer = await api.client.get("/jobs", headers=headers)  # type: ignore[arg-type]
        await problem(answer, 401, "unauthenticated")
        said.add((await answer.get_data(), answer.headers["WWW-Authenticate"]))
    assert len(said) == 1
    assert (await api.client.get("/jobs", headers=ann)).status_code == 200


async def test_the_schemes_name_may_be_written_small(api: Api, ann: dict[str, str]) -> None:
    key = ann["Authorization"].removeprefix("Bearer ")
    for text in (f"bearer {key}", f"BEARER  {key} "):
        answer = await api.client.get("/jobs", headers={"Authorization": text})
        assert answer.status_code == 200


async def test_a_key_in_the_address_opens_nothing(api: Api, ann: dict[str, str]) -> None:
    key = ann["Authorization"].removeprefix("Bearer ")
    for name in ("key", "api_key", "token", "access_token"):
        await problem(await api.client.get(f"/tasks?{name}={key}"), 401, "unauthenticated")


async def test_a_key_is_good_until_it_expires(
    api: Api, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await keys("ann", lasts=60)
    expiry = keys.made[-1].expires_at or 0
    for now, status in ((expiry - 1, 200), (expiry, 401)):
        monkeypatch.setattr(key_ring, "now_ms", lambda now=now: now)
        assert (await api.client.get("/jobs", headers=headers)).status_code == status
    assert now_ms() < expiry


async def test_a_revoked_key_is_refused_at_once(api: Api, keys: Keys, ann: dict[str, str]) -> None:
    assert (await api.client.get("/jobs", headers=ann)).status_code == 200
    assert await keys.ring.revoke(keys.made[-1].id)
    await problem(await api.client.get("/jobs", headers=ann), 401, "unauthenticated")


async def test_what_another_process_does_to_keys_is_soon_known_here(
    app: Quart, api: Api, keys: Keys, ann: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = app.extensions["jobs"].store
    key, text = new_key("elsewhere")
    headers = {"Authorization": f"Bearer {text}"}
    clock = [key_ring.monotonic()]
    monkeypatch.setattr(key_ring, "monotonic", lambda: clock[0])

    assert (await api.client.get("/jobs", headers=headers)).status_code == 401
    await store.add_key(key)
    clock[0] += key_ring.NEWS_AGE + 0.01
    assert (await api.client.get("/jobs", headers=headers)).status_code == 200
    await store.revoke_key(key.id)
    clock[0] += key_ring.MAX_AGE + 0.01
    assert (await api.client.get("/jobs", headers=headers)).status_code == 401
    assert key_ring.MAX_AGE <= 5


async def test_a_request_costs_no_look_into_the_store(
    app: Quart, api: Api, ann: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    store = app.extensions["jobs"].store
    keys_of_store = store.keys

    async def counted() -> Any:
        looks.append(1)
        return await keys_of_store()

    clock = [key_ring.monotonic()]
    monkeypatch.setattr(key_ring, "monotonic", lambda: clock[0])
    monkeypatch.setattr(store, "keys", counted)
    unknown = {"Authorization": f"Bearer {new_key('unknown')[1]}"}
    clock[0] += key_ring.MAX_AGE + 0.01
    for _ in range(5):
        assert (await api.client.get("/tasks", headers=ann)).status_code == 200
        assert (await api.client.get("/tasks", headers=unknown)).status_code == 401
        assert (await api.client.get("/tasks")).status_code == 401
    assert len(looks) == 1


# Whether a key is wanted


async def test_anyone_may_ask_until_there_is_a_key_even_if_that_is_revoked(
    api: Api, keys: Keys
) -> None:
    assert (await api.client.get("/jobs")).status_code == 200
    ann = await keys("ann")
    assert (await api.client.get("/jobs")).status_code == 401
    assert (await api.client.get("/jobs", headers=ann)).status_code == 200
    await keys.ring.revoke(keys.made[-1].id)
    assert (await api.client.get("/jobs")).status_code == 401


async def test_the_first_key_counts_from_the_request_that_brings_it(
    app: Quart, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [key_ring.monotonic()]
    monkeypatch.setattr(key_ring, "monotonic", lambda: clock[0])
    assert (await _submitted(api, {}))["owner"] is None
    key, text = new_key("ann")
    await app.extensions["jobs"].store.add_key(key)  # as another process does
    clock[0] += key_ring.NEWS_AGE + 0.01
    assert (await _submitted(api, {"Authorization": f"Bearer {text}"}))["owner"] == "ann"
    assert (await api.client.get("/jobs")).status_code == 401


async def _embedded(folder: Path, **facts: Any) -> Quart:
    app = Quart("host")
    settings = {key: facts.pop(key) for key in ("auth",) if key in facts}
    Jobs(app, engine="inline", lanes=0, database=str(folder / "jobs.db"), **settings)
    app.register_blueprint(jobs_api(**facts))
    return app


@pytest.mark.parametrize(("auth", "status"), [("required", 401), ("off", 200), ("auto", 200)])
async def test_the_setting_says_whether_a_key_is_wanted(
    tmp_path: Path, auth: str, status: int
) -> None:
    app = await _embedded(tmp_path, auth=auth)
    async with app.test_app():
        assert (await app.test_client().get("/jobs")).status_code == status
        await app.extensions["jobs"].keys.add(new_key("ci")[0])
        status = 200 if auth == "off" else 401
        assert (await app.test_client().get("/jobs")).status_code == status


# An app that knows its callers


def _by_header(request: Request) -> Principal | None:
    name = request.headers.get("X-User")
    return None if name is None else Principal(name, frozenset({Scope.READ, Scope.SUBMIT}))


async def _by_header_async(request: Request) -> Principal | None:
    return _by_header(request)


async def _by_header_or_key(request: Request) -> Principal | None:
    return _by_header(request) or await key_principal(request)


@pytest.mark.parametrize("hook", [_by_header, _by_header_async])
async def test_an_app_says_itself_who_asks(
    tmp_path: Path, hook: Callable[[Request], Principal | Awaitable[Principal | None] | None]
) -> None:
    app = await _embedded(tmp_path, principal=hook, auth="off")
    async with app.test_app():
        client = app.test_client()
        key, text = new_key("ci")
        await app.extensions["jobs"].keys.add(key)
        for headers in ({}, {"Authorization": f"Bearer {text}"}):
            await problem(await client.get("/jobs", headers=headers), 401, "unauthenticated")
        ann, bob = {"X-User": "ann"}, {"X-User": "bob"}
        answer = await client.post("/jobs", json={"task": "api.echo"}, headers=ann)
        job = await answer.get_json()
        assert job["owner"] == "ann"
        assert (await client.get(job["links"]["self"], headers=ann)).status_code == 200
        await problem(await client.get(job["links"]["self"], headers=bob), 404, "unknown-job")
        await problem(await client.delete(job["links"]["self"], headers=ann), 403, "missing-scope")


async def test_an_app_that_knows_its_callers_may_take_keys_too(tmp_path: Path) -> None:
    app = await _embedded(tmp_path, principal=_by_header_or_key)
    async with app.test_app():
        client = app.test_client()
        key, text = new_key("ci")
        await app.extensions["jobs"].keys.add(key)
        for headers in ({"X-User": "ann"}, {"Authorization": f"Bearer {text}"}):
            assert (await client.get("/jobs", headers=headers)).status_code == 200
        await problem(await client.get("/jobs"), 401, "unauthenticated")


@pytest.mark.parametrize("owner", [None, ""])
def test_only_an_admin_is_nobody_in_particular(owner: str | None) -> None:
    with pytest.raises(ValueError, match="owner"):
        Principal(owner, frozenset({Scope.READ}))
    assert Principal(None, frozenset({Scope.ADMIN})).is_admin


# Whose jobs


async def _submitted(api: Api, headers: dict[str, str], **more: Any) -> dict[str, Any]:
    body = {"task": "api.echo", "countdown": 600}
    answer = await api.client.post("/jobs", json=body, headers=headers | more)
    assert answer.status_code == 202
    job: dict[str, Any] = await answer.get_json()
    return job


def _about(text: bytes, job_id: str) -> str:
    return text.decode().replace(job_id, "<job_id>")


@pytest.mark.parametrize(
    "route",
    [route for route in TABLE if "<job_id>" in route.path],
    ids=lambda route: f"{route.method} {route.path}",
)
async def test_another_owners_job_is_no_other_than_none(
    api: Api, keys: Keys, ann: dict[str, str], route: Route
) -> None:
    bob, admin = await keys("bob"), await keys("root", "admin")
    job = await _submitted(api, ann)
    mine = await _submitted(api, bob)
    foreign = await _ask(api, route, bob, job["id"])
    none = await _ask(api, route, bob, UNKNOWN)
    await problem(foreign, 404, "unknown-job")
    assert _about(await foreign.get_data(), job["id"]) == _about(await none.get_data(), UNKNOWN)
    assert foreign.status_code == none.status_code
    assert {n: v for n, v in foreign.headers.items() if n != "date"} == {
        n: v for n, v in none.headers.items() if n != "date"
    }
    assert (await (await api.client.get(job["links"]["self"], headers=ann)).get_json()) == job

    for headers, own in ((bob, mine), (admin, job)):
        answer = await _ask(api, route, headers, own["id"])
        assert b"problems/unknown-job" not in await answer.get_data()


async def test_a_list_shows_the_callers_own_jobs(api: Api, keys: Keys, ann: dict[str, str]) -> None:
    bob, admin = await keys("bob"), await keys("root", "admin")
    anns = await keys("ann", "read")
    one, two, three = [await _submitted(api, who) for who in (ann, bob, ann)]

    async def listed(query: str, headers: dict[str, str]) -> list[str]:
        answer = await api.client.get(f"/jobs{query}", headers=headers)
        assert answer.status_code == 200
        return [job["id"] for job in (await answer.get_json())["jobs"]]

    for query in ("", "?owner=ann", "?state=PENDING", "?task=api.echo", "?limit=2"):
        assert await listed(query, anns) == [three["id"], one["id"]]
    assert await listed("", bob) == [two["id"]]
    assert await listed("", admin) == [three["id"], two["id"], one["id"]]
    assert await listed("?owner=bob", admin) == [two["id"]]
    assert await listed("?owner=nobody", admin) == []
    await problem(await api.client.get("/jobs?owner=bob", headers=ann), 403, "missing-scope")
    await problem(await api.client.get("/jobs?owner=none", headers=ann), 403, "missing-scope")


async def test_the_pages_of_a_list_stay_the_callers_own(
    api: Api, keys: Keys, ann: dict[str, str]
) -> None:
    bob = await keys("bob")
    jobs = [await _submitted(api, who) for who in (ann, bob, ann, bob, ann)]
    path, seen = "/jobs?limit=1", []
    while path:
        page = await (await api.client.get(path, headers=ann)).get_json()
        seen += [job["id"] for job in page["jobs"]]
        path = page["links"]["next"]
    assert seen == [jobs[n]["id"] for n in (4, 2, 0)]


async def test_a_job_is_its_submitters(api: Api, keys: Keys, ann: dict[str, str]) -> None:
    for path, body in (("/jobs", {"task": "api.echo"}), ("/tasks/api.echo/jobs", {})):
        for more in ({}, {"Idempotency-Key": path}):
            answer = await api.client.post(path, json=body, headers=ann | more)
            assert (await answer.get_json())["owner"] == "ann"
    admin = await keys("root", "admin")
    assert (await _submitted(api, admin))["owner"] == "root"


async def test_nobodys_job_is_seen_by_admins_only(api: Api, keys: Keys) -> None:
    job = await _submitted(api, {})
    assert job["owner"] is None
    ann, admin = await keys("ann"), await keys("root", "admin")
    await problem(await api.client.get(job["links"]["self"], headers=ann), 404, "unknown-job")
    assert (await api.client.get(job["links"]["self"], headers=admin)).status_code == 200


async def test_a_job_that_the_app_submits_is_nobodys_whoever_asked_it_to(tmp_path: Path) -> None:
    app = await _embedded(tmp_path)

    @app.get("/own")
    async def own() -> str:
        return (await echo.delay()).id

    async with app.test_app():
        client = app.test_client()
        ann = await Keys(app)("ann")
        job_id = await (await client.get("/own", headers=ann)).get_data(as_text=True)
        await problem(await client.get(f"/jobs/{job_id}", headers=ann), 404, "unknown-job")
        admin = await Keys(app)("root", "admin")
        seen = await (await client.get(f"/jobs/{job_id}", headers=admin)).get_json()
        assert seen["owner"] is None


async def test_a_job_that_a_job_submits_is_its_owners_too(
    api: Api, keys: Keys, ann: dict[str, str]
) -> None:
    answer = await api.client.post("/jobs", json={"task": "api.breed"}, headers=ann)
    parent = await answer.get_json()
    child = await _result_of(api, parent, ann)
    answer = await api.client.get(f"/jobs/{child}", headers=ann)
    assert (await answer.get_json())["owner"] == "ann"
    bob = await keys("bob")
    await problem(await api.client.get(f"/jobs/{child}", headers=bob), 404, "unknown-job")


async def _result_of(api: Api, job: dict[str, Any], headers: dict[str, str]) -> Any:
    waiting = headers | {"Prefer": "wait=20"}
    seen = await (await api.client.get(job["links"]["self"], headers=waiting)).get_json()
    assert seen["state"] == "SUCCESS", seen
    return await (await api.client.get(job["links"]["result"], headers=headers)).get_json()


async def test_the_same_idempotency_key_of_another_owner_is_another(
    api: Api, keys: Keys, ann: dict[str, str]
) -> None:
    once = {"Idempotency-Key": "monday"}
    bob, anns = await keys("bob"), await keys("ann")
    first = await _submitted(api, ann, **once)
    assert (await _submitted(api, anns, **once))["id"] == first["id"]
    assert (await _submitted(api, bob, **once))["id"] != first["id"]
    body = {"task": "api.echo", "args": {"value": 2}}
    answer = await api.client.post("/jobs", json=body, headers=bob | once)
    document = await problem(answer, 422, "idempotency-key-reused")
    assert first["id"] not in str(document)


# What is documented


async def test_the_document_names_the_scope_of_every_operation(
    api: Api, ann: dict[str, str]
) -> None:
    document = await (await api.client.get("/openapi.json")).get_json()
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    scopes = {(route.method.lower(), _template(route)): route.scope for route in TABLE}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            template = re.sub(r"/tasks/api\.\w+/jobs", "/tasks/{name}/jobs", path)
            scope = scopes[method, template]
            assert operation.get("security", []) == ([{"key": [scope]}] if scope else [])
            assert ("401" in operation["responses"]) is ("403" in operation["responses"])
            assert ("401" in operation["responses"]) is (scope is not None)
    answer = document["components"]["responses"]["unauthenticated"]
    assert "WWW-Authenticate" in answer["headers"]


async def test_a_key_is_optional_in_the_document_where_none_is_wanted(api: Api, keys: Keys) -> None:
    async def security() -> Any:
        document = await (await api.client.get("/openapi.json")).get_json()
        return document["paths"]["/jobs"]["get"]["security"]

    assert await security() == [{"key": ["read"]}, {}]
    await keys("ann")
    assert await security() == [{"key": ["read"]}]


def _template(route: Route) -> str:
    return re.sub(r"<(\w+)>", r"{\1}", route.path)


# Many jobs at once


async def test_a_filter_reaches_no_other_owners_jobs(
    api: Api, keys: Keys, ann: dict[str, str]
) -> None:
    bob = await keys("bob")
    body = {"task": "api.echo", "countdown": 600}
    hers = await (await api.client.post("/jobs", json=body, headers=ann)).get_json()
    his = await (await api.client.post("/jobs", json=body, headers=bob)).get_json()
    for wanted in ({"ids": [hers["id"], his["id"]]}, {"state": "PENDING"}, {"task": "api.echo"}):
        dry = wanted | {"dry_run": True}
        told = await (await api.client.post("/jobs/cancel", json=dry, headers=bob)).get_json()
        assert told["matched"] == 1
    answer = await api.client.post("/jobs/cancel", json={"owner": "ann"}, headers=bob)
    await problem(answer, 403, "missing-scope")
    wanted = {"ids": [hers["id"], his["id"]]}
    told = await (await api.client.post("/jobs/cancel", json=wanted, headers=bob)).get_json()
    assert told["changed"] == 1
    for job, who, state in ((hers, ann, "PENDING"), (his, bob, "REVOKED")):
        seen = await (await api.client.get(job["links"]["self"], headers=who)).get_json()
        assert seen["state"] == state
    told = await (await api.client.post("/jobs/retry", json=wanted, headers=ann)).get_json()
    assert told["matched"] == 0


async def test_the_jobs_of_a_batch_are_the_callers(
    api: Api, keys: Keys, ann: dict[str, str]
) -> None:
    made = await api.client.post("/jobs/batch", json={"jobs": [{"task": "api.echo"}]}, headers=ann)
    (job,) = (await made.get_json())["jobs"]
    lines = await api.client.post(
        "/jobs/batch",
        data='{"task": "api.echo"}',
        headers=ann | {"Content-Type": "application/jsonl"},
    )
    assert job["owner"] == (await lines.get_json(force=True))["job"]["owner"] == "ann"
    answer = await api.client.get(f"/jobs/{job['id']}", headers=await keys("bob"))
    await problem(answer, 404, "unknown-job")


async def test_a_rerun_belongs_to_the_owner_of_the_first_job(
    api: Api, keys: Keys, ann: dict[str, str]
) -> None:
    job = await (await api.client.post("/jobs", json={"task": "api.echo"}, headers=ann)).get_json()
    root = await keys("root", "admin")
    again = await api.client.post(f"/jobs/{job['id']}/rerun", headers=root)
    assert (await again.get_json())["owner"] == "ann"
