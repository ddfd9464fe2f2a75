"""The same signup as `examples.flask_app`, on plain Celery: needs a broker and a worker besides.

export BROKER=redis://localhost/0 SECRET_KEY=…
celery -A examples.flask_celery:celery worker
flask --app examples.flask_celery run
"""

import os

from celery import Celery
from flask import Flask, g, request, url_for

from jobs.flask import RequestContextTask

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]  # seals the requests that travel; the same everywhere

celery = Celery(__name__, broker=os.environ["BROKER"], backend=os.environ["BROKER"])
celery.flask_app = app


@celery.task(base=RequestContextTask, bind=True, carry=["user"], max_retries=3)
def welcome(self, address: str) -> str:
    """Write the mail; the task sees the request that asked for it, in its second attempt too."""
    if self.request.retries == 0:
        raise self.retry(countdown=0)  # as after a mail server that did not answer
    link = url_for("confirm", address=address, _external=True)
    return f"Dear {g.user},\n\nplease confirm your address: {link}\n"


@app.before_request
def know_the_user():
    g.user = request.headers.get("X-User", "reader")


@app.post("/signup")
def signup():
    sent = welcome.delay(request.get_json().get("address"))
    return {"id": sent.id}, 202, {"Location": url_for("status", task_id=sent.id)}


@app.get("/signup/<task_id>")
def status(task_id: str):
    return {"id": task_id, "state": celery.AsyncResult(task_id).state}


@app.get("/signup/<task_id>/mail")
def mail(task_id: str):
    text = celery.AsyncResult(task_id).get(timeout=10)
    return text, {"Content-Type": "text/plain; charset=utf-8"}


@app.get("/confirm/<address>")
def confirm(address: str):
    return {"confirmed": address}
