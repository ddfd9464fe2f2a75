"""An app whose tasks report what they see of the request that submitted them."""

import asyncio
import dataclasses
import logging
from typing import Any
from uuid import UUID

from quart import Quart, Response, current_app, g, request, session, url_for
from quart.typing import ResponseReturnValue

from jobs import Jobs, JobsError, current_job, task

CANARY = "canary-7f3b9c"


@dataclasses.dataclass
class User:
    """Not JSON: travels by its carrier, as its number."""

    number: int
    name: str


USERS = {7: User(7, "Ann Å")}


@task(carry=["tenant", "user"])
def see(names: list[str]) -> dict[str, Any]:
    """The named attributes of the request, and all else that a job may look at."""
    seen: dict[str, Any] = {name: _plain(getattr(request, name)) for name in names}
    return seen | {
        "header_list": request.headers.getlist("X-Repeated"),
        "query_list": request.args.getlist("q"),
        "session_user": session.get("user"),
        "tenant": g.tenant,
        "user_name": g.user.name,
        "hidden": hasattr(g, "hidden"),
        "link": url_for("page", name="ü", _external=True),
        "app": current_app.name,
        "attempt": current_job.attempt,
    }


@task()
async def see_async() -> str:
    await asyncio.sleep(0)
    return f"{request.method} {request.path}"


@task()
def parent(depth: int) -> str:
    """Submits a child job from a sync job: blocks until it is committed."""
    return child.delay(depth).id


@task()
async def parent_async(depth: int) -> str:
    handle = await child.delay(depth)
    return handle.id


@task()
def child(depth: int) -> str:
    return f"{request.method} {request.url} {depth}"


@task()
async def waits_for_a_job() -> None:
    handle = await child.delay(1)
    await handle.result()


@task()
async def asks_for(job_id: str) -> list[str]:
    """What a job may do with others: look them up, and cancel them."""
    found = await jobs.get(UUID(job_id))
    before = await found.cancel()
    return [found.state, before, (await jobs.get(job_id)).state]


@task()
def asks_for_sync(job_id: str) -> str:
    return jobs.run(jobs.get(job_id)).state


@task()
async def waits_for_one_looked_up(job_id: str) -> None:
    await (await jobs.get(job_id)).result()


@task(after_request=True)
def with_after_request() -> str:
    return "made"


@task()
def fails(message: str) -> None:
    raise LookupError(message)


@task(carry=["tenant", "user"])
def comes_back() -> list[Any]:
    """Says what it sees of its request: as an error at first, an hour later as its result."""
    trace = request.headers["traceparent"]
    seen = [request.method, request.url, g.tenant, g.user.name, trace]
    if current_job.attempt == 1:
        current_job.retry("|".join(seen), countdown=3600)
    return [current_job.attempt, *seen]


@task()
def says_canary(text: str) -> str:
    logging.getLogger(__name__).warning("a job ran")
    return request.headers["Authorization"][:3] + text


@task()
def reads_body() -> None:
    asyncio.run(request.get_data())


@task()
def without_request() -> bool:
    return current_app.name == __name__


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | type(None)) else dict(value)


app = Quart(__name__)
app.secret_key = "a secret of the tests"
jobs = Jobs(app)
jobs.carrier("user", save=lambda user: user.number, load=USERS.__getitem__)
after_request_ran: list[str] = []


@app.before_request
async def remember() -> None:
    g.tenant = request.headers.get("X-Tenant", "none")
    g.user = USERS[7]
    g.hidden = object()


@app.after_request
async def note(response: Response) -> Response:
    after_request_ran.append(str(await response.get_data(as_text=True)))
    return response


@app.errorhandler(JobsError)
async def tell(error: JobsError) -> ResponseReturnValue:
    return str(error), 500


@app.route("/page/<name>")
async def page(name: str) -> str:
    return name


@app.post("/login")
async def login() -> ResponseReturnValue:
    session["user"] = "ann"
    return {}


@app.route("/see/<item>", methods=["POST", "PATCH"])
async def submit_see(item: str) -> ResponseReturnValue:
    handle = await see.delay(
        [
            "method", "path", "url", "base_url", "host", "remote_addr", "cookies", "view_args",
            "endpoint", "blueprint",
        ]
    )  # fmt: skip
    return {"id": handle.id, "state": handle.state}, 202


@app.post("/sync")
def submit_from_a_sync_view() -> ResponseReturnValue:
    handle = see.delay(["method", "path"])
    return {"id": handle.id, "state": handle.state}, 202  # type: ignore[attr-defined]


@app.post("/run/<name>")
async def submit_by_name(name: str) -> ResponseReturnValue:
    arguments = await request.get_json(silent=True) or []
    handle = await globals()[name].delay(*arguments)
    return {"id": handle.id}, 202


@app.get("/look/<job_id>")
async def look(job_id: str) -> ResponseReturnValue:
    return {"state": (await jobs.get(job_id)).state}


@app.post("/cannot")
async def submit_what_cannot_travel() -> ResponseReturnValue:
    g.tenant = object()
    await see.delay([])
    return {}
