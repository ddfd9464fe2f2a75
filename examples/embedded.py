"""An app with background jobs in routes of its own: `quart-jobs serve --app examples.embedded:app`.

Or as any Quart app is served: `hypercorn -c hypercorn.toml examples.embedded:app`,
`uvicorn examples.embedded:app`, `QUART_APP=examples.embedded:app quart run`.
"""

from quart import Quart, g, request, url_for

from jobs import InvalidArguments, JobNotFound, Jobs, task

app = Quart(__name__)
jobs = Jobs(app)


@task(carry=["user"])
def welcome(address: str) -> str:
    """Write the mail; the job sees the request that asked for it."""
    link = url_for("confirm", address=address, _external=True)
    return f"Dear {g.user},\n\nplease confirm your address: {link}\n"


@app.before_request
async def know_the_user() -> None:
    g.user = request.headers.get("X-User", "reader")


@app.post("/signup")
async def signup():
    form = await request.get_json()
    job = await welcome.delay(form.get("address"))
    where = {"Location": url_for("status", job_id=job.id)}
    return {"id": job.id, "state": job.state}, 202, where


@app.get("/signup/<job_id>")
async def status(job_id: str):
    job = await jobs.get(job_id)
    return {"id": job.id, "state": job.state}


@app.get("/signup/<job_id>/mail")
async def mail(job_id: str):
    job = await jobs.get(job_id)
    return await job.result(timeout=10), {"Content-Type": "text/plain; charset=utf-8"}


@app.get("/confirm/<address>")
async def confirm(address: str):
    return {"confirmed": address}


@app.errorhandler(InvalidArguments)
async def invalid(error: InvalidArguments):
    return {"error": str(error)}, 422


@app.errorhandler(JobNotFound)
async def unknown(error: JobNotFound):
    return {"error": str(error)}, 404
