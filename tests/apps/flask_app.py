"""A Flask app whose tasks report what they see of the request that submitted them."""

import asyncio
import dataclasses
from typing import Any

from flask import Flask, Response, current_app, g, has_request_context, request, session, url_for
from flask.typing import ResponseReturnValue

from jobs import Jobs, JobsError, current_job, task


@dataclasses.dataclass
class User:
    """Not JSON: travels by its carrier, as its number."""

    number: int
    name: str


USERS = {7: User(7, "Ann Å")}


@task(carry=["tenant", "user"])
def see() -> dict[str, Any]:
    """All that a job may look at."""
    return {
        "method": request.method,
        "path": request.path,
        "url": request.url,
        "remote_addr": request.remote_addr,
        "cookies": sorted(request.cookies),
        "view_args": request.view_args,
        "repeated": request.headers["X-Repeated"],
        "query": request.args.getlist("q"),
        "session_user": session.get("user"),
        "tenant": g.tenant,
        "user_name": g.user.name,
        "hidden": hasattr(g, "hidden"),
        "link": url_for("page", name="ü", _external=True),
        "app": current_app.name,
        "attempt": current_job.attempt,
        "runs_its_own_loop": asyncio.run(asyncio.sleep(0, True)),
    }


@task()
async def see_async() -> str:
    await asyncio.sleep(0)
    return f"{request.method} {request.path}"


@task()
def parent() -> str:
    """Submits a child job from a sync job: blocks until it is committed."""
    return child.delay().id


@task()
async def parent_async() -> str:
    return (await child.delay()).id


@task()
def child() -> str:
    return f"{request.method} {request.url}"


@task()
def serves_a_request_itself() -> str:
    """Its own client's request must not open Jobs in the child process."""
    return app.test_client().get("/page/x").get_data(as_text=True)


@task(after_request=True)
def with_after_request() -> str:
    return "made"


@task()
def teardowns() -> int:
    return len(torn_down)


@task()
def reads_body() -> None:
    request.get_data()


@task()
def without_request() -> bool:
    return current_app.name == __name__ and not has_request_context()


app = Flask(__name__)
app.secret_key = "a secret of the tests"
jobs = Jobs(app)
jobs.carrier("user", save=lambda user: user.number, load=USERS.__getitem__)
after_request_ran: list[str] = []
torn_down: list[str] = []


@app.before_request
def remember() -> None:
    g.tenant = request.headers.get("X-Tenant", "none")
    g.user = USERS[7]
    g.hidden = object()


@app.after_request
def note(response: Response) -> Response:
    after_request_ran.append(response.get_data(as_text=True))
    return response


@app.teardown_request
def note_the_end(_: BaseException | None) -> None:
    torn_down.append(request.path)


@app.errorhandler(JobsError)
def tell(error: JobsError) -> ResponseReturnValue:
    return str(error), 500


@app.route("/page/<name>")
def page(name: str) -> str:
    return name


@app.post("/login")
def login() -> ResponseReturnValue:
    session["user"] = "ann"
    return {}


@app.route("/see/<item>", methods=["PATCH"])
def submit_see(item: str) -> ResponseReturnValue:
    handle = see.delay()
    return {"id": handle.id, "state": handle.state}, 202


@app.post("/run/<name>")
def submit_by_name(name: str) -> ResponseReturnValue:
    return {"id": globals()[name].delay().id}, 202


@app.post("/async/<name>")
async def submit_from_an_async_view(name: str) -> ResponseReturnValue:
    handle = await globals()[name].delay()
    return {"result": await handle.result(timeout=20)}


@app.get("/result/<job_id>")
def result(job_id: str) -> ResponseReturnValue:
    job = jobs.run(jobs.get(job_id))
    return {"result": jobs.run(job.result(timeout=20))}


@app.post("/cannot")
def submit_what_cannot_travel() -> ResponseReturnValue:
    g.tenant = object()
    see.delay()
    return {}
