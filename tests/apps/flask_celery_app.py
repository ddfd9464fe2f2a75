"""A plain Flask and Celery app whose tasks report what they see of the request they were sent from."""

import dataclasses
import os
from typing import Any

from celery import Celery, chain
from flask import Flask, current_app, g, has_request_context, request, session, url_for
from flask.typing import ResponseReturnValue

from jobs.flask import RequestContextTask
from jobs.snapshot import Carrier

app = Flask(__name__)
app.secret_key = "a secret of the tests"

BROKER = os.environ.get("TEST_BROKER", "memory://")
celery = Celery(__name__, broker=BROKER, backend=os.environ.get("TEST_BACKEND", "cache+memory://"))
celery.flask_app = app
celery.conf.update(
    broker_connection_retry_on_startup=True, accept_content=["json"], worker_prefetch_multiplier=1
)


@dataclasses.dataclass
class User:
    """Not JSON: travels by its carrier, as its number."""

    number: int
    name: str


USERS = {7: User(7, "Ann Å")}


def context() -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "url": request.url,
        "root_url": request.root_url,
        "query": request.args.getlist("q"),
        "headers": [list(pair) for pair in request.headers if pair[0].startswith("X-")],
        "cookies": dict(request.cookies),
        "remote_addr": request.remote_addr,
        "endpoint": request.endpoint,
        "session_user": session.get("user"),
        "tenant": g.get("tenant"),
        "link": url_for("page", name="ü", _external=True),
        "app": current_app.name,
    }


@celery.task(base=RequestContextTask, bind=True, carry=["tenant"])
def see(self: Any, number: int) -> dict[str, Any]:
    return context() | {"number": number, "id_is_known": bool(self.request.id)}


@celery.task(
    base=RequestContextTask,
    carry=["user"],
    carriers={"user": Carrier(save=lambda user: user.number, load=USERS.__getitem__)},
)
def name_of_the_user() -> str:
    name: str = g.user.name
    return name


@celery.task(base=RequestContextTask, bind=True, carry=["tenant"], max_retries=2)
def comes_back(self: Any, log: list[str]) -> list[str]:
    """Fails twice; what it does to `g` does not travel with the retry."""
    log = [*log, f"{self.request.retries} {request.url} {g.tenant}"]
    g.tenant = "changed"
    if self.request.retries < 2:
        raise self.retry(args=[log], countdown=0)
    return log


@celery.task(base=RequestContextTask)
def add(number: int, more: int) -> list[Any]:
    return [number + more, request.path]


@celery.task(base=RequestContextTask)
def starts_another(number: int) -> str:
    sent = see.apply_async((number,), headers={"mine": "1"})
    result: str = sent.id
    return result


@celery.task(base=RequestContextTask, after_request=True)
def with_after_request() -> str:
    return "made"


@celery.task(base=RequestContextTask)
def reads_body() -> None:
    request.get_data()


@celery.task(base=RequestContextTask)
def without_request() -> bool:
    return current_app.name == __name__ and not has_request_context()


after_request_ran: list[str] = []


@app.before_request
def remember() -> None:
    g.tenant = request.headers.get("X-Tenant")
    g.user = USERS[7]


@app.after_request
def note(response: Any) -> Any:
    after_request_ran.append(response.get_data(as_text=True))
    return response


@app.get("/page/<name>")
def page(name: str) -> str:
    return name


@app.post("/login")
def login() -> ResponseReturnValue:
    session["user"] = "ann"
    return {}


@app.post("/seen")
def seen() -> ResponseReturnValue:
    """What a task sent from here ought to see."""
    return context()


@app.post("/see")
def send_see() -> ResponseReturnValue:
    return {"id": see.delay(5).id}


@app.post("/run/<name>")
def send(name: str) -> ResponseReturnValue:
    arguments = request.get_json(silent=True) or []
    return {"id": globals()[name].apply_async(arguments).id}


@app.post("/chain")
def send_chain() -> ResponseReturnValue:
    return {"id": chain(add.s(1, 2), first.s(), add.s(10)).apply_async().id}


@celery.task(base=RequestContextTask)
def first(pair: list[Any]) -> int:
    number: int = pair[0]
    return number


@app.post("/apply")
def apply() -> ResponseReturnValue:
    result: dict[str, Any] = see.apply((5,)).get()
    return result
