"""Whom a request counts for, in an app with a guard around it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, Request

from jobs import Jobs
from jobs.keys import Scope
from jobs.settings import Settings
from service.api import Principal, jobs_api, key_principal
from service.guard import Guard
from tests.api.conftest import problem
from tests.api.test_auth import Keys

LIMIT = 3
BAD = {"Authorization": f"Bearer qj_0123456789ab_{'A' * 43}"}


async def _by_header_or_key(request: Request) -> Principal | None:
    user = request.headers.get("X-User")
    if user == "root":
        return Principal(None, frozenset({Scope.ADMIN}))
    await asyncio.sleep(0)  # it looks the user up
    return Principal(user, frozenset({Scope.READ})) if user else await key_principal(request)


@pytest.fixture
def hook() -> Any:
    return None


@pytest.fixture
async def app(tmp_path: Path, hook: Any) -> AsyncIterator[Quart]:
    app = Quart("host")
    Jobs(app, engine="inline", lanes=0, database=str(tmp_path / "jobs.db"), auth="required")
    app.register_blueprint(jobs_api(principal=hook))
    app.asgi_app = Guard(app.asgi_app, Settings(rate_limit=f"{LIMIT}/h"))  # type: ignore[method-assign]
    async with app.test_app():
        yield app


async def ask(app: Quart, path: str, headers: dict[str, str], address: str = "192.0.2.1") -> Any:
    base = {"client": (address, 4711)}
    return await app.test_client().get(path, headers=headers, scope_base=base)


async def left(app: Quart, headers: dict[str, str], address: str = "192.0.2.1") -> int:
    """How many more are admitted, as an admitted request is told."""
    answer = await ask(app, "/jobs", headers, address)
    assert answer.status_code == 200
    assert answer.headers["RateLimit-Policy"] == f'"default";q={LIMIT};w=3600'
    assert len(answer.headers.getlist("RateLimit")) == 1
    said: str = answer.headers["RateLimit"]
    return int(said.removeprefix('"default";r=').partition(";")[0])


async def test_a_key_has_one_rate_wherever_it_is_used(app: Quart) -> None:
    ann = await Keys(app)("ann")
    assert [await left(app, ann, f"192.0.2.{n}") for n in range(LIMIT)] == [2, 1, 0]
    answer = await ask(app, "/jobs", ann, "192.0.2.99")
    document = await problem(answer, 429, "rate-limited")
    assert "3/h requests (setting: rate_limit)" in document["detail"]
    assert answer.headers["Retry-After"] == "1200"
    assert answer.headers["RateLimit"] == '"default";r=0;t=3600'
    assert answer.headers["RateLimit-Policy"] == '"default";q=3;w=3600'


async def test_keys_at_one_address_do_not_share_a_rate(app: Quart) -> None:
    keys = Keys(app)
    for headers in [await keys("ann"), await keys("ann"), await keys("bob")]:
        assert [await left(app, headers) for _ in range(LIMIT)] == [2, 1, 0]
        await problem(await ask(app, "/jobs", headers), 429, "rate-limited")


async def test_who_is_not_known_counts_by_address(app: Quart) -> None:
    ann = await Keys(app)("ann")
    for headers in ({}, BAD, {"Authorization": ann["Authorization"][:-1] + "-"}):
        await problem(await ask(app, "/jobs", headers), 401, "unauthenticated")
    answer = await ask(app, "/jobs", BAD)
    await problem(answer, 429, "rate-limited")
    assert answer.headers["Retry-After"] == "1200"
    await problem(await ask(app, "/jobs", BAD, "192.0.2.2"), 401, "unauthenticated")
    assert (
        (await ask(app, "/docs", {}, "192.0.2.3")).headers["RateLimit"].startswith('"default";r=2')
    )


@pytest.mark.parametrize("hook", [_by_header_or_key])
async def test_whom_the_app_knows_counts_by_owner(app: Quart) -> None:
    ann, bob, root = ({"X-User": name} for name in ("ann", "bob", "root"))
    for headers in (ann, bob):
        assert [await left(app, headers) for _ in range(LIMIT)] == [2, 1, 0]
        await problem(await ask(app, "/jobs", headers, "192.0.2.2"), 429, "rate-limited")
    key = await Keys(app)("ann")  # by key, beside what its owner has
    assert [await left(app, key) for _ in range(LIMIT)] == [2, 1, 0]
    # Who is nobody in particular has the address.
    assert [await left(app, root) for _ in range(LIMIT)] == [2, 1, 0]
    await problem(await ask(app, "/jobs", root), 429, "rate-limited")


async def test_the_document_says_what_is_answered_beyond_the_rate(app: Quart) -> None:
    document = await (await app.test_client().get("/openapi.json")).get_json()
    responses = document["components"]["responses"]
    assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= set(
        responses["rate-limited"]["headers"]
    )
    operations = [each for path in document["paths"].values() for each in path.values()]
    scoped = [each for each in operations if "security" in each]
    assert len(scoped) > 10
    for each in scoped:
        answer = each["responses"]["429"]
        answer = responses[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
        assert "rate-limited" in answer["content"]["application/problem+json"]["examples"]
        assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= set(answer["headers"])
