"""A Flask app with background jobs, and nothing else to run:

flask --app examples.flask_app run
gunicorn examples.flask_app:app --workers 2
"""

from flask import Flask, g, request, url_for

from jobs import InvalidArguments, JobNotFound, Jobs, task

app = Flask(__name__)
jobs = Jobs(app)


@task(carry=["user"])
def welcome(address: str) -> str:
    """Write the mail; the job sees the request that asked for it."""
    link = url_for("confirm", address=address, _external=True)
    return f"Dear {g.user},\n\nplease confirm your address: {link}\n"


@app.before_request
def know_the_user():
    g.user = request.headers.get("X-User", "reader")


@app.post("/signup")
def signup():
    job = welcome.delay(request.get_json().get("address"))  # on disk when this returns
    return {"id": job.id}, 202, {"Location": url_for("status", job_id=job.id)}


@app.get("/signup/<job_id>")
def status(job_id: str):
    job = jobs.run(jobs.get(job_id))
    return {"id": job.id, "state": job.state}


@app.get("/signup/<job_id>/mail")
def mail(job_id: str):
    job = jobs.run(jobs.get(job_id))
    return jobs.run(job.result(timeout=10)), {"Content-Type": "text/plain; charset=utf-8"}


@app.get("/confirm/<address>")
def confirm(address: str):
    return {"confirmed": address}


@app.errorhandler(InvalidArguments)
def invalid(error: InvalidArguments):
    return {"error": str(error)}, 422


@app.errorhandler(JobNotFound)
def unknown(error: JobNotFound):
    return {"error": str(error)}, 404
